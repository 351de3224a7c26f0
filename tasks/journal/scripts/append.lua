-- Appends entries to many journals and publishes each on its channel: both or neither. One item never fails another.
--
-- KEYS  the stream of each item
-- ARGV  time to live after an end (ms), then for each item: id, payload, closes ('', 'attempt' or 'journal'), nonce ('': any)
-- Reply one letter for each item: o(k), f(enced) or g(one)
local SEALED = '18446744073709551615'
local ttl_ms = ARGV[1]

local function is_mine(stream, attempt, nonce)
  local claim = redis.pcall('XRANGE', stream, attempt .. '-0', attempt .. '-0')
  if claim.err or not claim[1] then return claim.err == nil and redis.call('EXISTS', stream) == 0 end
  return string.find(claim[1][2][2], nonce, 1, true) ~= nil
end

-- An id that is not greater than the last is another's claim, an end, or this very entry, sent again after a lost reply.
local function refused(stream, id, payload)
  local found = redis.call('XRANGE', stream, id, id)
  return found[1] and found[1][2][2] == payload and 'o' or 'f'
end

local function append(stream, id, payload, closes, nonce)
  local attempt = string.match(id, '^%d+')
  if nonce ~= '' and not is_mine(stream, attempt, nonce) then return 'f' end
  local added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'd', payload)
  if not added then return 'g' end
  if added.err then
    if string.find(added.err, 'WRONGTYPE', 1, true) then return 'f' end
    if string.find(added.err, 'equal or smaller', 1, true) or string.find(added.err, 'exhausted', 1, true) then
      return refused(stream, id, payload)
    end
    return nil, added
  end
  redis.call('PUBLISH', stream, payload)
  -- A last id beyond every later one: whatever this attempt (or anyone, after an end) still holds is refused.
  if closes == 'attempt' then
    redis.call('XSETID', stream, attempt .. '-' .. SEALED)
  elseif closes == 'journal' then
    redis.call('XSETID', stream, SEALED .. '-' .. SEALED)
    redis.call('PEXPIRE', stream, ttl_ms)
  end
  return 'o'
end

local statuses = {}
for i = 1, #KEYS do
  local at = 4 * i - 2
  local status, failure = append(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  -- Out of memory, read-only and the like concern every item. What was written comes back as ok when the batch is retried.
  if failure then return failure end
  statuses[i] = status
end
return table.concat(statuses)
