-- Moves a worker's record to the history: because it leaves, or because the sweep found it dead.
--
-- KEYS  workers, lease, mark that this boot was swept, owners, unacked messages, history
-- ARGV  node, boot, identity, 'left' or 'dead', the lease that the sweep saw ('' if none; ignored for 'left'), reason,
--       life of a mark (s), length of the history, channel of events
-- Reply 1 if the record was moved; 0 if it is another's, or its worker has come back since the sweep looked
local workers, lease, mark, owners, unacked, history = unpack(KEYS)
local node, boot, identity, how, seen, reason, mark_s, history_length, channel = unpack(ARGV)

local stored = redis.call('HGET', workers, node)
if not stored then return 0 end
local ok, record = pcall(cjson.decode, stored)
if not ok or type(record) ~= 'table' or record.boot ~= boot then return 0 end
if how == 'dead' then
  if (redis.call('GET', lease) or '') ~= seen then return 0 end
  redis.call('SET', mark, '1', 'EX', mark_s)
elseif redis.call('EXISTS', unacked) == 0 then
  redis.call('SREM', owners, identity)
end

local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
redis.call('DEL', lease)
redis.call('HDEL', workers, node)
redis.call('LPUSH', history, '{"departed_at":' .. now .. ',"departed":"' .. how .. '",' .. string.sub(stored, 2))
redis.call('LTRIM', history, 0, history_length - 1)
redis.call('PUBLISH', channel, string.format(
  '{"v":1,"event":"%s","at":%s,"node":%s,"boot":%s,"reason":%s}',
  how, now, cjson.encode(node), cjson.encode(boot), cjson.encode(reason)))
return 1
