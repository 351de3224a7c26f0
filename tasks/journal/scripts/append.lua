-- Appends entries to many journals and publishes each on its channel: both or neither. One item never fails another.
-- An entry <attempt>-<n> follows <attempt>-<n-1> and nothing else, so that no journal ever has a hole.
-- Field c of an entry is the nonce of its claim: the last entry alone tells what another one would follow, and whose.
--
-- KEYS  the stream of each item
-- ARGV  time to live after an end (ms), prefix of the channels, then for each item: id, payload, closes ('', 'attempt' or
--       'journal'), nonce ('': any)
-- Reply one letter for each item: o(k), h(eard: a reader listens), f(enced), g(one: there is no such journal) or b(ehind: what it
--       follows is not there)
local SEALED = '18446744073709551615'
local ttl_ms, channel = ARGV[1], ARGV[2]
-- The id of the entry that this call has written last to each stream.
local written = {}

local function split(id)
  local attempt, n = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(attempt), tonumber(n)
end

-- Says it of an entry without field c, too: an older version has written it, or it was written again.
local function is_mine(stream, attempt, nonce)
  local claim = redis.call('XRANGE', stream, attempt .. '-0', attempt .. '-0')[1]
  return claim ~= nil and string.find(claim[2][2], nonce, 1, true) ~= nil
end

-- An id that is not greater than the last is another's claim, an end, or this very entry, sent again after a lost reply.
local function refused(stream, id, payload)
  local found = redis.call('XRANGE', stream, id, id)
  return found[1] and found[1][2][2] == payload and 'o' or 'f'
end

-- What keeps an entry out, if anything does.
local function obstacle(stream, id, payload, nonce)
  local attempt, n = string.match(id, '^(%d+)-(%d+)$')
  local before = attempt .. '-' .. (n - 1)
  if written[stream] == before then return nil end
  local found = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if found.err then return 'f' end
  local last = found[1]
  if not last then return 'g' end
  if last[1] == before and last[2][4] == nonce then return nil end
  attempt, n = tonumber(attempt), tonumber(n)
  local last_attempt, last_n = split(last[1])
  if last_attempt < attempt then return 'b' end
  if last_attempt == attempt and nonce ~= '' and not is_mine(stream, attempt, nonce) then return 'f' end
  if last_attempt > attempt or last_n >= n then return refused(stream, id, payload) end
  if last_n < n - 1 then return 'b' end
  return nil
end

local function append(stream, id, payload, closes, nonce)
  local status = obstacle(stream, id, payload, nonce)
  if status then return status end
  local added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'd', payload, 'c', nonce)
  if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) or string.find(added.err, 'exhausted', 1, true) then return 'f' end
    return nil, added
  end
  local readers = redis.call('PUBLISH', channel .. stream, payload)
  written[stream] = id
  -- A last id beyond every later one: whatever this attempt (or anyone, after an end) still holds is refused.
  if closes == 'attempt' then
    redis.call('XSETID', stream, string.match(id, '^%d+') .. '-' .. SEALED)
  elseif closes == 'journal' then
    redis.call('XSETID', stream, SEALED .. '-' .. SEALED)
    redis.call('PEXPIRE', stream, ttl_ms)
  end
  return readers > 0 and 'h' or 'o'
end

local statuses = {}
for i = 1, #KEYS do
  local at = 4 * i - 1
  local status, failure = append(KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  -- Out of memory, read-only and the like concern every item. What was written comes back as ok when the batch is retried.
  if failure then return failure end
  statuses[i] = status
end
return table.concat(statuses)
