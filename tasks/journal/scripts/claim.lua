-- Takes a request for one worker, or says why not. One script, so that two claims of one request cannot both succeed.
--
-- KEYS  stream, cancel mark, ledger
-- ARGV  task id, owner (node#boot), nonce of this call, prefix of the lease keys, time to live of the stream (ms)
-- Reply answer, attempt, crashes, queued_ms ('' if unknown), present owner, flat list of (id, payload) of earlier attempts
local stream, mark, ledger = KEYS[1], KEYS[2], KEYS[3]
local task_id, owner, nonce, leases, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function record(payload)
  local ok, value = pcall(cjson.decode, payload)
  if ok and type(value) == 'table' then return value end
  return {}
end

local function payload_of(entry)
  return entry[2][2]
end

local function milliseconds_queued()
  local submitted = redis.call('HGET', ledger, task_id)
  -- Not decoded: the entry holds the whole message. Inside that, every quotation mark is escaped.
  local at = submitted and tonumber(string.match(submitted, '"at"%s*:%s*([%d.]+)'))
  if not at then return '' end
  local now = redis.call('TIME')
  return string.format('%.3f', math.max(0, (now[1] - at) * 1000 + now[2] / 1000))
end

local function flat(entries, count)
  local list = {}
  for i = 1, count do
    list[2 * i - 1] = entries[i][1]
    list[2 * i] = payload_of(entries[i])
  end
  return list
end

local entries = redis.call('XRANGE', stream, '-', '+')
local attempt, crashes = 0, 0

if #entries > 0 then
  local last_id, last = entries[#entries][1], record(payload_of(entries[#entries]))
  attempt = tonumber(string.match(last_id, '^%d+'))
  if last.type == 'end' or last.type == 'error' then
    redis.call('HDEL', ledger, task_id)
    return {'ended', attempt, 0, '', '', flat(entries, #entries)}
  end

  local first = #entries
  while first > 1 and string.match(entries[first - 1][1], '^%d+') == string.match(last_id, '^%d+') do
    first = first - 1
  end
  local claim = record(payload_of(entries[first]))
  crashes = math.max(0, math.min(tonumber(claim.crashes) or 0, 1000))

  -- The reply of a claim was lost and its client sent it again: without the nonce it would be refused by itself.
  if first == #entries and claim.nonce == nonce then
    local answer = redis.call('EXISTS', mark) == 1 and 'cancelled' or 'claimed'
    local waited = type(claim.queued_ms) == 'number' and string.format('%.3f', claim.queued_ms) or ''
    return {answer, attempt, crashes, waited, owner, flat(entries, first - 1)}
  end

  if last.type == 'release' then
    if last.crashed == true then crashes = crashes + 1 end
  elseif type(claim.worker) == 'string' and redis.call('EXISTS', leases .. claim.worker) == 1 then
    redis.call('HDEL', ledger, task_id)
    return {'busy', attempt, crashes, '', claim.worker, {}}
  else
    for i = first, #entries do
      local kind = record(payload_of(entries[i])).type
      if kind == 'start' or kind == 'token' then
        crashes = crashes + 1
        break
      end
    end
  end
end

attempt = attempt + 1
local queued_ms = milliseconds_queued()
local payload = string.format(
  '{"v":1,"type":"claim","attempt":%d,"worker":%s,"crashes":%d,"nonce":%s,"queued_ms":%s}',
  attempt, cjson.encode(owner), crashes, cjson.encode(nonce), queued_ms == '' and 'null' or queued_ms)
redis.call('XADD', stream, string.format('%d-0', attempt), 'd', payload)
redis.call('PEXPIRE', stream, ttl_ms)
redis.call('PUBLISH', stream, payload)
redis.call('HDEL', ledger, task_id)
local answer = redis.call('EXISTS', mark) == 1 and 'cancelled' or 'claimed'
return {answer, attempt, crashes, queued_ms, owner, flat(entries, #entries)}
