-- Takes or renews a lock that expires; a time of 0 gives it back.
--
-- KEYS  lock
-- ARGV  who, for how long (ms)
-- Reply 1 if the lock is the caller's now, else 0
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
