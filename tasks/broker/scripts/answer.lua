-- Stores the result of a request as Celery does, and forgets its message: it is acknowledged. Both or neither.
--
-- KEYS  result (its channel has the same name), unacked messages, their index
-- ARGV  result as Celery encodes it, time to live (s; 0 for ever), delivery tag
local result, unacked, index = KEYS[1], KEYS[2], KEYS[3]
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
