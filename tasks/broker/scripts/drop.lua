-- Forgets a message that a worker held: it is acknowledged.
--
-- KEYS  unacked messages, their index
-- ARGV  delivery tag
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
