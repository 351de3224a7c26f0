-- Queues a lost request again, at the front, unless somebody has touched its entry since the caller read it. From the second time on
-- its list has the message and no reference: a worker of the first version drops references. Stands behind reference.lua.
--
-- KEYS  ledger, list
-- ARGV  task id, entry that the caller read, message ('' gives the request up), times it was sent again
-- Reply 1 if it was done, 0 if the entry is another one now
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
local clock = redis.call('TIME')
local at = tonumber(string.format('%d.%06d', clock[1], clock[2]))
local entry = cjson.encode({at = at, queue = KEYS[2], message = ARGV[3], resent = tonumber(ARGV[4])})
redis.call('HSET', KEYS[1], ARGV[1], entry)
return redis.call('RPUSH', KEYS[2], tonumber(ARGV[4]) > 1 and ARGV[3] or reference(ARGV[1])) and 1
