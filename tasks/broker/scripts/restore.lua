-- Gives messages of a dead worker back to the front of their queues (consumers pop from the right), each exactly once,
-- even if several programs do so at once. A generation goes into the ledger again: its next worker, too, may die while fetching it.
-- Stands behind reference.lua.
--
-- KEYS  unacked messages, their index, ledger
-- ARGV  for each message: delivery tag, list ('' drops it), message, task id of a generation ('' for other tasks)
-- Reply 1 or 0 for each message: whether it was restored by this call
local unacked, index, ledger = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local at = tonumber(string.format('%d.%06d', clock[1], clock[2]))
local done = {}
for i = 1, #ARGV, 4 do
  local tag, list, message, task_id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local mine = redis.call('HDEL', unacked, tag)
  redis.call('ZREM', index, tag)
  if mine == 1 and list ~= '' then
    redis.call('RPUSH', list, task_id ~= '' and reference(task_id) or message)
    if task_id ~= '' then
      redis.call('HSET', ledger, task_id, cjson.encode({at = at, queue = list, message = message}))
    end
  end
  done[#done + 1] = mine
end
return done
