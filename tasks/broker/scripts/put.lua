-- Queues requests of one queue and priority and writes them into the ledger, in order, until one is refused: because the queue is
-- full, or because its id is another's. One whose prompt begins as others do goes into the lane of a worker (place.lua). The messages
-- themselves are in the ledger alone (reference.lua). Both stand before this.
--
-- KEYS  ledger, limits, lists of requests set aside by time, the list to push to, then the other lists of the same queue, then for each
--       request the fingerprint of the one with its id
-- ARGV  LPUSH or RPUSH, name of the queue, bound where no limit is known ('' = not bounded, since they are not new), what stands
--       behind a queue's name in those of its further lists, for how long fingerprints are kept (s), what stands before a node in the
--       name of its lane, 1 if a worker may be chosen by the hash alone, prefixes of the keys of affinity and of unacknowledged
--       messages, number of the queue's lists; then for each request message, task id, fingerprint ('' = any), digests of the
--       prompt's beginnings ('' = any worker), the model that it names as JSON ('' if that is not known)
-- Reply {} if they were queued; else the number of the first that was not, counted from 1, and why: 'other' if its id is another
--       request's, or depth, bound and the queue's limit as JSON ('' if unknown)
local ledger, limits, aside, common = unpack(KEYS, 1, 4)
local push, queue, floor, separator, kept_s, lane, cold, affinity, unacked, lists = unpack(ARGV, 1, 10)
local BEFORE_LISTS, BEFORE_REQUESTS, PARTS = 3, 10, 5
lists = tonumber(lists)

local limit, bound, depth = '', math.huge, 0
if floor ~= '' then
  limit = redis.call('HGET', limits, queue) or ''
  bound = tonumber(string.match(limit, '"bound": ?(%d+)')) or tonumber(floor)
  for i = BEFORE_LISTS + 1, BEFORE_LISTS + lists do depth = depth + redis.call('LLEN', KEYS[i]) end
  for _, other in ipairs(redis.call('ZRANGE', aside, 0, -1)) do
    if string.find(other, queue .. separator, 1, true) == 1 then depth = depth + redis.call('LLEN', other) end
  end
end
local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
local fleet

for n = 1, #KEYS - BEFORE_LISTS - lists do
  local request, first = KEYS[BEFORE_LISTS + lists + n], BEFORE_REQUESTS + PARTS * (n - 1)
  local message, task_id, fingerprint, digests, model = unpack(ARGV, first + 1, first + PARTS)
  if fingerprint ~= '' then
    local known = redis.call('GET', request)
    if known and known ~= fingerprint then return {n, 'other'} end
  end
  if depth >= bound then return {n, depth, bound, limit} end
  depth = depth + 1

  if fingerprint ~= '' then redis.call('SET', request, fingerprint, 'EX', kept_s) end
  local list, at, waits = common, now, ''
  if digests ~= '' then
    fleet = fleet or fleet_of(affinity, unacked, queue, lane, tonumber(now))
    local node, wait_ms = place(fleet, affinity, digests, cold == '1', tonumber(now))
    if node then list, waits = lane .. node, ',"wait_ms":' .. wait_ms end
  end
  local _, last = string.find(list, queue .. separator, 1, true)
  if last and string.find(list, '@', last, true) then redis.call('ZADD', aside, 'NX', now, list) end
  if floor == '' then
    -- What nobody has claimed yet goes on waiting since it was submitted.
    local entry = redis.call('HGET', ledger, task_id)
    at = entry and string.match(entry, '"at": ?([%d.]+)') or now
  end
  redis.call('HSET', ledger, task_id,
    '{"at":' .. at .. waits .. (model ~= '' and ',"model":' .. model or '') .. ',"queue":' .. cjson.encode(list) ..
    ',"message":' .. cjson.encode(message) .. '}')
  redis.call(push, list, reference(task_id))
end
return {}
