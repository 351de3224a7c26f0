-- Notes that a worker holds a message that it has fetched. A worker of the fleet is an owner from then on, though the sweep has
-- forgotten it: taken for dead, it may have come back, and does not know it yet. Stands behind holding.lua.
--
-- KEYS  unacked messages, their index, the workers that hold messages (none: of an application's own worker, which has no identity)
-- ARGV  delivery tag, message with exchange and routing key as JSON, identity of the worker
note(KEYS[1], KEYS[2], ARGV[1], ARGV[2], 0)
if KEYS[3] then redis.call('SADD', KEYS[3], ARGV[3]) end
