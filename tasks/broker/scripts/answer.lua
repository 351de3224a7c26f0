-- Stores the result of a request as Celery does, and forgets its message: it is acknowledged. Both or neither.
-- No result is stored before its journal has its end: a reader would take the journal for one that has expired.
--
-- KEYS  result (its channel has the same name), unacked messages, their index, journal
-- ARGV  result as Celery encodes it, time to live (s; 0 for ever), delivery tag ('' for a message that is acknowledged later), id of
--       the entry that ends the journal ('' for any)
-- Reply 1, or 0 where Redis has lost the end of the journal
local result, unacked, index, journal = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if ARGV[4] ~= '' then
  -- A key of another type is no journal, and what is there instead is nothing to wait for.
  local found = redis.pcall('XREVRANGE', journal, '+', '-', 'COUNT', 1)
  if not found.err and not (found[1] and found[1][1] == ARGV[4]) then return 0 end
end
local stored = redis.call('GET', result)
-- A success stands, as with Celery: what comes after it is a second delivery's.
if not stored or string.find(stored, '{"status": "SUCCESS"', 1, true) ~= 1 then
  if ARGV[2] == '0' then
    redis.call('SET', result, ARGV[1])
  else
    redis.call('SETEX', result, ARGV[2], ARGV[1])
  end
  redis.call('PUBLISH', result, ARGV[1])
end
redis.call('ZREM', index, ARGV[3])
redis.call('HDEL', unacked, ARGV[3])
return 1
