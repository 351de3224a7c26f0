-- Says that a worker takes requests from its lanes.
--
-- KEYS  hash of the workers that have lanes
-- ARGV  node of the worker, its identity and slots as place.lua reads them
local clock = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d.%06d', clock[1], clock[2]) .. ' ' .. ARGV[2])
