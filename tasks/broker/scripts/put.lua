-- Queues a generation and writes it into the ledger, or refuses it because its queue is full, or because its id is another's. One
-- whose prompt begins as others do goes into the lane of a worker (place.lua). The message itself is
-- in the ledger alone (reference.lua). Both stand before this.
--
-- KEYS  ledger, limits, lists of requests set aside by time, fingerprint of the request with this id, the list to push to, then
--       the other lists of the same queue
-- ARGV  message, task id, LPUSH or RPUSH, name of the queue, bound where no limit is known ('' = not bounded, since it is not
--       new), what stands behind a queue's name in those of its further lists, fingerprint ('' = any), for how long it is kept (s);
--       digests of the prompt's beginnings ('' = any worker), what stands before a node in the name of its lane, 1 if a worker may
--       be chosen by the hash alone, prefixes of the keys of affinity and of unacknowledged messages
-- Reply {} if it was queued; {'other'} if the id is another request's; else depth, bound and the queue's limit as JSON ('' if
--       unknown)
local ledger, limits, aside, request, list = unpack(KEYS, 1, 5)
local message, task_id, push, queue, floor, separator, fingerprint, kept_s, digests, lane, cold, affinity, unacked = unpack(ARGV)

if fingerprint ~= '' then
  local known = redis.call('GET', request)
  if known and known ~= fingerprint then return {'other'} end
end

if floor ~= '' then
  local limit = redis.call('HGET', limits, queue) or ''
  local bound = tonumber(string.match(limit, '"bound": ?(%d+)')) or tonumber(floor)
  local depth = 0
  for i = 5, #KEYS do depth = depth + redis.call('LLEN', KEYS[i]) end
  for _, other in ipairs(redis.call('ZRANGE', aside, 0, -1)) do
    if string.find(other, queue .. separator, 1, true) == 1 then depth = depth + redis.call('LLEN', other) end
  end
  if depth >= bound then return {depth, bound, limit} end
end

if fingerprint ~= '' then redis.call('SET', request, fingerprint, 'EX', kept_s) end
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
local waits = ''
if digests ~= '' then
  local node, wait_ms = place(affinity, unacked, queue, lane, digests, cold == '1', tonumber(at))
  if node then list, waits = lane .. node, ',"wait_ms":' .. wait_ms end
end
local _, last = string.find(list, queue .. separator, 1, true)
if last and string.find(list, '@', last, true) then redis.call('ZADD', aside, 'NX', at, list) end
if floor == '' then
  -- What nobody has claimed yet goes on waiting since it was submitted.
  local entry = redis.call('HGET', ledger, task_id)
  at = entry and string.match(entry, '"at": ?([%d.]+)') or at
end
redis.call('HSET', ledger, task_id,
  '{"at":' .. at .. waits .. ',"queue":' .. cjson.encode(list) .. ',"message":' .. cjson.encode(message) .. '}')
redis.call(push, list, reference(task_id))
return {}
