-- Takes a batch for one gateway, keeps it, or gives it up. Whoever has it drives it.
--
-- KEYS  the batch's lease
-- ARGV  the gateway, for how long (s); 0 gives it up
-- Reply 1 if the gateway has it now
local lease, holder, lease_s = KEYS[1], ARGV[1], tonumber(ARGV[2])
local has = redis.call('HGET', lease, 'holder')
if has and has ~= holder then return 0 end
if lease_s == 0 then
  redis.call('HDEL', lease, 'holder')
  return 0
end
redis.call('HSET', lease, 'holder', holder)
redis.call('EXPIRE', lease, lease_s)
return 1
