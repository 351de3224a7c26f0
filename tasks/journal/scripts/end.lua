-- Ends a journal that nobody holds, as it was when the caller read it.
--
-- KEYS  stream, lease of its last owner, ledger
-- ARGV  task id, last id that the caller saw ('' if there was no stream), id and payload of the end, time to live (ms)
-- Reply ended, busy (the owner lives) or moved (read it again)
local SEALED = '18446744073709551615'
local stream, lease, ledger = KEYS[1], KEYS[2], KEYS[3]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
if (last[1] and last[1][1] or '') ~= ARGV[2] then return 'moved' end
if redis.call('EXISTS', lease) == 1 then return 'busy' end
redis.call('XADD', stream, ARGV[3], 'd', ARGV[4])
redis.call('PUBLISH', stream, ARGV[4])
redis.call('XSETID', stream, SEALED .. '-' .. SEALED)
redis.call('PEXPIRE', stream, ARGV[5])
redis.call('HDEL', ledger, ARGV[1])
return 'ended'
