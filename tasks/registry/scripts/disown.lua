-- Forgets a dead worker, unless it has come back meanwhile and fetched a message.
--
-- KEYS  its unacked messages, owners
-- ARGV  its identity
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
