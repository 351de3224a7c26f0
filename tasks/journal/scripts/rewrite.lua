-- Writes a whole journal anew, if Redis has lost it.
--
-- KEYS  stream
-- ARGV  time to live (ms), last id ('' while the request runs), then (id, payload) of each entry
-- Reply 1 if it was written, 0 if there is one
local stream = KEYS[1]
if redis.call('EXISTS', stream) == 1 then return 0 end
for i = 3, #ARGV, 2 do
  redis.call('XADD', stream, ARGV[i], 'd', ARGV[i + 1])
  redis.call('PUBLISH', stream, ARGV[i + 1])
end
if ARGV[2] ~= '' then redis.call('XSETID', stream, ARGV[2]) end
redis.call('PEXPIRE', stream, ARGV[1])
return 1
