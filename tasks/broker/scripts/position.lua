-- How many requests will be taken before this one: those ahead in its list, and all that are more urgent.
--
-- KEYS  ledger, limits
-- ARGV  task id, what stands between a queue's name and a priority, then the priorities, most urgent first
-- Reply nothing if the request is in no queue; else how many are ahead, and the queue's limit as JSON ('' if unknown)
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return false end
local ok, record = pcall(cjson.decode, entry)
if not ok or type(record) ~= 'table' or type(record.queue) ~= 'string' or type(record.message) ~= 'string' then return false end

local left = redis.call('LPOS', record.queue, record.message)
if not left then return false end
local ahead = redis.call('LLEN', record.queue) - left - 1

local separator = string.find(record.queue, ARGV[2], 1, true)
local queue = separator and string.sub(record.queue, 1, separator - 1) or record.queue
-- What was set aside for its model waits for those that were before it.
if separator and string.find(record.queue, '@', separator, true) then
  return {ahead, redis.call('HGET', KEYS[2], queue) or ''}
end
for i = 3, #ARGV do
  local list = ARGV[i] == '0' and queue or queue .. ARGV[2] .. ARGV[i]
  if list == record.queue then break end
  ahead = ahead + redis.call('LLEN', list)
end
return {ahead, redis.call('HGET', KEYS[2], queue) or ''}
