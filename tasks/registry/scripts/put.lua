-- Queues a generation and writes it into the ledger, or refuses it because its queue is full.
--
-- KEYS  ledger, limits, the list to push to, then the other lists of the same queue
-- ARGV  message, task id, LPUSH or RPUSH, name of the queue, bound where no limit is known ('' = not bounded)
-- Reply {} if it was queued; else depth, bound and the queue's limit as JSON ('' if unknown)
local ledger, limits, list = KEYS[1], KEYS[2], KEYS[3]
local message, task_id, push, queue, floor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if floor ~= '' then
  local limit = redis.call('HGET', limits, queue) or ''
  local bound = tonumber(string.match(limit, '"bound": ?(%d+)')) or tonumber(floor)
  local depth = 0
  for i = 3, #KEYS do depth = depth + redis.call('LLEN', KEYS[i]) end
  if depth >= bound then return {depth, bound, limit} end
end

local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
redis.call('HSET', ledger, task_id,
  '{"at":' .. at .. ',"queue":' .. cjson.encode(list) .. ',"message":' .. cjson.encode(message) .. '}')
redis.call(push, list, message)
return {}
