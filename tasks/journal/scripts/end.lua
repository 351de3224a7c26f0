-- Ends a journal that nobody holds, as it was when the caller read it.
--
-- KEYS  stream, lease of its last owner, ledger, messages that this owner holds
-- ARGV  task id, last id that the caller saw ('' if there was no stream), id and payload of the end, time to live (ms),
--       delivery tag of the owner's message ('' if it is not known), prefix of the channel
-- Reply ended, busy (the owner lives, and holds the message) or moved (read it again)
local SEALED = '18446744073709551615'
local stream, lease, ledger, held = unpack(KEYS)
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
if (last[1] and last[1][1] or '') ~= ARGV[2] then return 'moved' end
if redis.call('EXISTS', lease) == 1 and (ARGV[6] == '' or redis.call('HEXISTS', held, ARGV[6]) == 1) then return 'busy' end
redis.call('XADD', stream, ARGV[3], 'd', ARGV[4])
redis.call('PUBLISH', ARGV[7] .. stream, ARGV[4])
redis.call('XSETID', stream, SEALED .. '-' .. SEALED)
redis.call('PEXPIRE', stream, ARGV[5])
-- A message that waits is needed: its worker stores the result, if nobody has, and tells the request's chord.
local entry = redis.call('HGET', ledger, ARGV[1]) or ''
if string.match(entry, '^{"at":[%d.]+,"purged":true') or not string.find(entry, '"message"', 1, true) then
  redis.call('HDEL', ledger, ARGV[1])
end
return 'ended'
