-- Writes a worker's first record and its lease; a predecessor of the same name, which the caller found dead, is superseded.
--
-- KEYS  workers, lease, mark that this boot was swept, owners, history
-- ARGV  node, boot, boot of the predecessor that was found dead ('' if none), lease (ms), client id, record without times,
--       identity, prefix of leases, prefix of swept marks, life of a mark (s), length of the history, channel of events
-- Reply 'registered' and the time; or 'moved' and the boot that has the name now: look at that one and come again
local workers, lease, mark, owners, history = unpack(KEYS)
local node, boot, dead, lease_ms, client_id, body = unpack(ARGV, 1, 6)
local identity, leases, marks, mark_s, history_length, channel = unpack(ARGV, 7, 12)

local stored = redis.call('HGET', workers, node)
local other = ''
if stored then
  local ok, record = pcall(cjson.decode, stored)
  if ok and type(record) == 'table' and type(record.boot) == 'string' and record.boot ~= boot then other = record.boot end
end
if other ~= dead then return {'moved', other} end

local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
redis.call('HSET', workers, node, '{"started_at":' .. now .. ',"beat_at":' .. now .. ',"loop_at":' .. now .. ',' .. string.sub(body, 2))
redis.call('SET', lease, client_id, 'PX', lease_ms)
redis.call('SADD', owners, identity)
redis.call('DEL', mark)

local function announce(event, about)
  redis.call('PUBLISH', channel, string.format(
    '{"v":1,"event":"%s","at":%s,"node":%s,"boot":%s}', event, now, cjson.encode(node), cjson.encode(about)))
end

if other ~= '' then
  local predecessor = node .. '#' .. other
  redis.call('DEL', leases .. predecessor)
  redis.call('SET', marks .. predecessor, '1', 'EX', mark_s)
  redis.call('LPUSH', history, '{"departed_at":' .. now .. ',"departed":"superseded",' .. string.sub(stored, 2))
  redis.call('LTRIM', history, 0, history_length - 1)
  announce('superseded', other)
end
announce('registered', boot)
return {'registered', now}
