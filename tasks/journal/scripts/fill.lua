-- Writes what Redis has lost of a journal, behind what it still has; a page at a time.
--
-- KEYS  stream, ledger, held messages of the journal's owner, their index, the workers that hold messages
-- ARGV  task id, time to live (ms), prefix of the channel, the entry that the page follows ('' for none, '?' to ask) as id and as
--       SHA-1 of its payload, the last id that the stream is to have ('' for that of its last entry), delivery tag and text of
--       the held message ('' where it is not known), the owner, then (id, payload) of each entry of the page
-- Reply id and SHA-1 of the payload of the stream's last entry ('' if there is none): of the page's, or of what was in its way
local stream, ledger, held, index, owners = unpack(KEYS)
local task_id, ttl_ms, channel, id, digest, seal, tag, message, identity = unpack(ARGV, 1, 9)

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local last_id, last_digest = '', ''
if last then last_id, last_digest = last[1], redis.sha1hex(last[2][2]) end
if last_id ~= id or last_digest ~= digest then return {last_id, last_digest} end

for i = 10, #ARGV, 2 do
  redis.call('XADD', stream, ARGV[i], 'd', ARGV[i + 1])
  redis.call('PUBLISH', channel .. stream, ARGV[i + 1])
end
if seal ~= '' then redis.call('XSETID', stream, seal) end
redis.call('PEXPIRE', stream, ttl_ms)
redis.call('HDEL', ledger, task_id)
-- Who claims a request whose owner does not hold its message takes it over.
if tag ~= '' and redis.call('HEXISTS', held, tag) == 0 then
  local clock = redis.call('TIME')
  redis.call('ZADD', index, string.format('%d.%06d', clock[1], clock[2]), tag)
  redis.call('HSET', held, tag, message)
  redis.call('SADD', owners, identity) -- which the sweep may have taken for dead, and look after no more
end
return {ARGV[#ARGV - 1], redis.sha1hex(ARGV[#ARGV])}
