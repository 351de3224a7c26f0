-- Notes that a worker holds a message that it has fetched.
--
-- KEYS  unacked messages, their index
-- ARGV  delivery tag, message with exchange and routing key as JSON
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%d.%06d', clock[1], clock[2]), ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
