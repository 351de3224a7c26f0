-- How many requests will be taken before this one: those ahead in its list, and all that are more urgent. Stands behind reference.lua.
--
-- KEYS  ledger, limits
-- ARGV  task id, what stands between a queue's name and a priority, prefix of the schedules' keys, then the priorities, most urgent
--       first
-- Reply nothing if the request is in no queue; else how many are ahead, the queue's limit as JSON ('' if unknown), and ms until it is
--       due
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return false end
local ok, record = pcall(cjson.decode, entry)
if not ok or type(record) ~= 'table' or type(record.queue) ~= 'string' or type(record.message) ~= 'string' then return false end

local separator = string.find(record.queue, ARGV[2], 1, true)
local queue = separator and string.sub(record.queue, 1, separator - 1) or record.queue
-- Another client's message is in the list itself.
local item, due_ms = reference(ARGV[1]), 0
local left = redis.call('LPOS', record.queue, item)
local at = not left and redis.call('ZSCORE', ARGV[3] .. queue, record.queue .. '\n' .. item)
if not (left or at) then left = redis.call('LPOS', record.queue, record.message) end
if not left then
  if not at then return false end
  local clock = redis.call('TIME')
  left, due_ms = -1, math.max(0, math.floor((at - clock[1]) * 1000 - clock[2] / 1000))
end
local ahead = redis.call('LLEN', record.queue) - left - 1
-- What was set aside for its model waits for those that were before it. What waits in a worker's lane ('@>') waits for those, and for
-- what is more urgent, as in any list of its priority.
local is_aside = separator and string.find(record.queue, '@', separator, true)
local lane = is_aside and string.find(record.queue, '@>', separator, true)
if is_aside and not lane then return {ahead, redis.call('HGET', KEYS[2], queue) or '', 0} end
local own = lane and string.sub(record.queue, separator + #ARGV[2], lane - 1)
for i = 4, #ARGV do
  local list = ARGV[i] == '0' and queue or queue .. ARGV[2] .. ARGV[i]
  if list == record.queue or ARGV[i] == own then break end
  ahead = ahead + redis.call('LLEN', list)
end
return {ahead, redis.call('HGET', KEYS[2], queue) or '', due_ms}
