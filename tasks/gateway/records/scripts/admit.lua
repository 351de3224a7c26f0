-- Takes a request within the limits of its API key, and keeps what any gateway needs to go on with its answer.
--
-- KEYS  the key's allowance, its open requests, its usage, the request's record
-- ARGV  requests a minute, tokens a minute, requests at once (0: any number), tokens that the request may cost, its id, for how long
--       it counts as open unless its gateway says so again (s), the record, for how long it is kept (s)
-- Reply what was exceeded ('' if nothing), seconds until it may be tried again, requests and tokens left, seconds until each is whole again
local allowance, open, usage, request = unpack(KEYS)
local per_minute = {requests = tonumber(ARGV[1]), tokens = tonumber(ARGV[2])}
local at_once, cost, id, lease_s, record, kept_s = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6

-- Each allowance fills up all the time, to what a minute has.
local known = redis.call('HMGET', allowance, 'at', 'requests', 'tokens')
local passed_s = known[1] and math.max(0, now - known[1]) or 0
local function left(name, before)
  local most = per_minute[name]
  return before and math.min(most, before + passed_s * most / 60) or most
end
local requests, tokens = left('requests', known[2]), left('tokens', known[3])
local wanted = math.min(cost, per_minute.tokens)

local function whole_in_s(name, count)
  return per_minute[name] > 0 and tostring((per_minute[name] - count) * 60 / per_minute[name]) or '0'
end
local function reply(exceeded, wait_s)
  return {exceeded, tostring(wait_s), math.floor(math.max(0, requests)), math.floor(math.max(0, tokens)),
    whole_in_s('requests', requests), whole_in_s('tokens', tokens)}
end

redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
-- Sent again, because the first reply was lost on its way: it is in, and counts once.
if redis.call('ZREM', open, id) == 1 then
  redis.call('ZADD', open, now + lease_s, id)
  return reply('', 0)
end
local exceeded, wait_s = '', 0
if at_once > 0 and redis.call('ZCARD', open) >= at_once then
  exceeded, wait_s = 'concurrency', 1
elseif per_minute.requests > 0 and requests < 1 then
  exceeded, wait_s = 'requests', (1 - requests) * 60 / per_minute.requests
elseif per_minute.tokens > 0 and tokens < wanted then
  exceeded, wait_s = 'tokens', (wanted - tokens) * 60 / per_minute.tokens
end
if exceeded ~= '' then
  redis.call('HINCRBY', usage, 'refused', 1)
  return reply(exceeded, wait_s)
end

if per_minute.requests > 0 then requests = requests - 1 end
if per_minute.tokens > 0 then tokens = tokens - wanted end
redis.call('HSET', allowance, 'at', string.format('%.6f', now), 'requests', tostring(requests), 'tokens', tostring(tokens))
redis.call('EXPIRE', allowance, 120)
redis.call('ZADD', open, now + lease_s, id)
redis.call('EXPIRE', open, kept_s)
redis.call('HINCRBY', usage, 'requests', 1)
redis.call('HSET', usage, 'used_at', clock[1])
redis.call('HSET', request, 'record', record)
redis.call('EXPIRE', request, kept_s)
return reply('', 0)
