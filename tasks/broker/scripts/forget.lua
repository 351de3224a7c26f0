-- Deletes the ledger's entry of a request that was purged, once its journal has ended.
--
-- KEYS  ledger
-- ARGV  task id
-- Reply 1 if it was deleted, 0 if there is none, or one of a request that was sent again since
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or not string.match(entry, '^{"at":[%d.]+,"purged":true') then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
