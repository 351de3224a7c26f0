-- Notes on which worker the beginnings of a prompt are warm.
--
-- KEYS  a hash for each beginning
-- ARGV  node of the worker, seconds until it is forgotten, then for each how many ms a request is worth waiting for
local clock = redis.call('TIME')
local at = string.format('%d.%06d', clock[1], clock[2])
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[1], at .. ' ' .. ARGV[i + 2])
  redis.call('EXPIRE', key, ARGV[2])
end
