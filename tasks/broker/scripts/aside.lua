-- Reads which lists hold requests that were set aside, and forgets those that are empty by now.
--
-- KEYS  aside (sorted set of lists by the time of their first request)
-- Reply flat list of (list, its length, ms since its first request)
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local found = {}
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  local length = redis.call('LLEN', members[i])
  if length == 0 then
    redis.call('ZREM', KEYS[1], members[i])
  else
    found[#found + 1] = members[i]
    found[#found + 1] = length
    found[#found + 1] = math.max(0, math.floor((now - members[i + 1]) * 1000))
  end
end
return found
