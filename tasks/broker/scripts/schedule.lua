-- Schedules a generation and writes it into the ledger, or refuses it because too many are scheduled for its queue, or because its
-- id is another's. Stands behind reference.lua.
--
-- KEYS  ledger, limits, schedule of the queue, fingerprint of the request with this id
-- ARGV  message, task id, list of the message, name of the queue, bound where no limit is known ('' = not bounded, since it is not
--       new), seconds until it is due, fingerprint ('' = any), for how long it is kept (s)
-- Reply {} if it was scheduled; {'other'} if the id is another request's; else how many are, bound and the queue's limit as JSON ('' if unknown)
local ledger, limits, schedule, request = unpack(KEYS)
local message, task_id, list, queue, floor, delay_s, fingerprint, kept_s = unpack(ARGV)
if fingerprint ~= '' then
  local known = redis.call('GET', request)
  if known and known ~= fingerprint then return {'other'} end
end
if floor ~= '' then
  local limit = redis.call('HGET', limits, queue) or ''
  local bound = tonumber(string.match(limit, '"bound": ?(%d+)')) or tonumber(floor)
  local scheduled = redis.call('ZCARD', schedule)
  if scheduled >= bound then return {scheduled, bound, limit} end
end
if fingerprint ~= '' then redis.call('SET', request, fingerprint, 'EX', kept_s) end
local clock = redis.call('TIME')
local at = string.format('%.6f', clock[1] + clock[2] / 1e6 + delay_s)
redis.call('HSET', ledger, task_id,
  '{"at":' .. at .. ',"queue":' .. cjson.encode(list) .. ',"message":' .. cjson.encode(message) .. '}')
redis.call('ZADD', schedule, at, list .. '\n' .. reference(task_id))
return {}
