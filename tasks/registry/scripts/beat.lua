-- Refreshes a worker's record and its lease; writes them again where Redis has lost them, or came back with those of a
-- predecessor of the same name, which this worker found dead when it started.
--
-- KEYS  workers, lease, mark that this boot was swept, owners, hash that says when the last sweep was
-- ARGV  node, boot, lease (ms), client id, record without times, identity, started_at ('' if never registered),
--       age of the last sign of Celery's loop (ms), channel of events
-- Reply 'ok', 'registered' (the record had vanished), 'swept' or 'superseded'; the time; that of the last sweep ('' if none)
local workers, lease, mark, owners, sweep = unpack(KEYS)
local node, boot, lease_ms, client_id, body, identity, started_at, loop_age_ms, channel = unpack(ARGV)

local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])
local last_sweep = redis.call('HGET', sweep, 'at') or ''
if redis.call('EXISTS', mark) == 1 then return {'swept', now, last_sweep} end

local vanished = true
local stored = redis.call('HGET', workers, node)
if stored then
  local ok, record = pcall(cjson.decode, stored)
  if ok and type(record) == 'table' and type(record.boot) == 'string' then
    local is_older = started_at ~= '' and (tonumber(record.started_at) or math.huge) < tonumber(started_at)
    if record.boot ~= boot and not is_older then return {'superseded', now, last_sweep} end
    vanished = record.boot ~= boot
  end
end

if started_at == '' then started_at = now end
local loop_at = string.format('%.6f', now - loop_age_ms / 1000)
redis.call('HSET', workers, node,
  '{"started_at":' .. started_at .. ',"beat_at":' .. now .. ',"loop_at":' .. loop_at .. ',' .. string.sub(body, 2))
redis.call('SET', lease, client_id, 'PX', lease_ms)
if not vanished then return {'ok', now, last_sweep} end
redis.call('SADD', owners, identity)
redis.call('PUBLISH', channel, string.format(
  '{"v":1,"event":"registered","at":%s,"node":%s,"boot":%s}', now, cjson.encode(node), cjson.encode(boot)))
return {'registered', now, last_sweep}
