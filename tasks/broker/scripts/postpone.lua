-- Puts a message that a worker has fetched into its queue's schedule, unless its time has come by Redis's clock. Stands behind
-- reference.lua.
--
-- KEYS  unacked messages, their index, schedule of the queue, ledger
-- ARGV  delivery tag, list of the message, message, its time (Unix seconds), task id of a request ('' for other tasks)
-- Reply 1 if the worker holds it no more, 0 if it is due
local unacked, index, schedule, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tag, list, message, at, task_id = unpack(ARGV)
local clock = redis.call('TIME')
if tonumber(at) <= clock[1] + clock[2] / 1e6 then return 0 end
redis.call('ZREM', index, tag)
-- Where it is not held any more, another worker has it.
if redis.call('HDEL', unacked, tag) == 1 then
  redis.call('ZADD', schedule, at, list .. '\n' .. (task_id ~= '' and reference(task_id) or message))
  if task_id ~= '' then
    redis.call('HSET', ledger, task_id,
      '{"at":' .. at .. ',"queue":' .. cjson.encode(list) .. ',"message":' .. cjson.encode(message) .. '}')
  end
end
return 1
