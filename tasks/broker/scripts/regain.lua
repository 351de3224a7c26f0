-- Notes again that a worker holds a message that it is about to give back, if Redis has lost the note and knows nothing else of the
-- request: it came back older than the request is. Stands behind holding.lua.
--
-- KEYS  unacked messages, their index, the workers that hold messages, ledger, stream of the request, mark that its answer was collected
-- ARGV  delivery tag, message with exchange and routing key as JSON, identity of the worker, task id
local unacked, index, owners, ledger, stream, collected = unpack(KEYS)
local tag, text, identity, task_id = unpack(ARGV)
if redis.call('HEXISTS', unacked, tag) == 1 or redis.call('HEXISTS', ledger, task_id) == 1 then return 0 end
if redis.call('EXISTS', collected) == 1 then return 0 end

local function record(entry)
  local ok, value = pcall(cjson.decode, entry and entry[2][2] or '')
  return ok and type(value) == 'table' and value or {}
end

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if last then
  local first = string.match(last[1], '^%d+') .. '-0'
  local claim = record(redis.call('XRANGE', stream, first, first)[1])
  local is_mine = claim.worker == identity and claim.delivery == tag
  local tail = record(last).type
  if not is_mine or tail == 'end' or tail == 'error' then return 0 end
end

note(unacked, index, tag, text, 0)
redis.call('SADD', owners, identity)
return 1
