-- Takes messages out of a queue for good. The ledger says of each request that it was purged, until its journal has ended, so that
-- nobody sends it again, and the sweep or a worker that finds the entry can end the journal. Stands behind reference.lua.
--
-- KEYS  ledger, lists of requests set aside by time, schedule of the queue, then its lists
-- ARGV  the name of the queue and what stands behind it in the names of further lists, messages in one call, bytes after which no
--       further one is looked at (Redis does nothing else meanwhile), then the names of the tasks that the ledger is for
-- Reply how many messages were taken, and those of them that are requests
local ledger, aside, schedule = KEYS[1], KEYS[2], KEYS[3]
local prefix, most, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ours = {}
for i = 4, #ARGV do ours[ARGV[i]] = true end
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])

local lists = {}
for i = 4, #KEYS do lists[#lists + 1] = KEYS[i] end
for _, list in ipairs(redis.call('ZRANGE', aside, 0, -1)) do
  if string.find(list, prefix, 1, true) == 1 then lists[#lists + 1] = list end
end

local count, requests = 0, {}
local function note(list, item)
  count = count + 1
  local message = message_of(ledger, item)
  if not message then return end
  bytes = bytes - #message
  local ok, decoded = pcall(cjson.decode, message)
  local headers = ok and type(decoded) == 'table' and decoded.headers
  if type(headers) == 'table' and type(headers.task) == 'string' and ours[headers.task] and type(headers.id) == 'string' then
    redis.call('HSET', ledger, headers.id, '{"at":' .. at .. ',"purged":true,"queue":' .. cjson.encode(list) ..
      ',"message":' .. cjson.encode(message) .. '}')
    requests[#requests + 1] = message
  end
end

for _, list in ipairs(lists) do
  while count < most and bytes > 0 do
    local item = redis.call('RPOP', list)
    if not item then break end
    note(list, item)
  end
end
while count < most and bytes > 0 do
  local item = redis.call('ZPOPMIN', schedule)[1]
  if not item then break end
  local break_at = string.find(item, '\n', 1, true)
  note(string.sub(item, 1, break_at - 1), string.sub(item, break_at + 1))
end
return {count, requests}
