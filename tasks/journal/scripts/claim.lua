-- Takes a request for one worker, or says why not. One script, so that two claims of one request cannot both succeed.
-- It reads three entries at most, however long the journal is. Stands behind claiming.lua.
--
-- KEYS  stream, cancel mark, ledger, fingerprint of the request with this id
-- ARGV  task id, owner (node#boot), nonce of this call, prefix of the lease keys, time to live of the stream (ms),
--       delivery tag of the message that the owner holds, prefix of the keys of held messages, prefix of the channel,
--       fingerprint of the message's request ('' = any), for how long it is kept (s)
-- Reply answer, attempt, crashes, queued_ms ('' if unknown), present owner, payload of the claim ('' if there is none)
local stream, mark, ledger, request = unpack(KEYS)
local task_id, owner, nonce, leases, ttl_ms, delivery, unacked, channel, fingerprint, kept_s = unpack(ARGV)

local function record(entry)
  local ok, value = pcall(cjson.decode, entry and entry[2][2] or '')
  if ok and type(value) == 'table' then return value end
  return {}
end

-- A worker that has given its message away, or has lost it, runs the request no more, whatever the journal says.
local function holds(claim)
  if type(claim.delivery) ~= 'string' or claim.delivery == '' then return true end
  return redis.pcall('HEXISTS', unacked .. claim.worker, claim.delivery) ~= 0
end

local function answer()
  return redis.call('EXISTS', mark) == 1 and 'cancelled' or 'claimed'
end

if fingerprint ~= '' then
  local known = redis.call('GET', request)
  if known and known ~= fingerprint then return {'other', 0, 0, '', '', ''} end
  redis.call('SET', request, fingerprint, 'EX', kept_s)
end

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local attempt, crashes, is_open = 0, 0, false

if last then
  local tail = record(last)
  attempt = tonumber(string.match(last[1], '^%d+'))
  if tail.type == 'end' or tail.type == 'error' then
    redis.call('HDEL', ledger, task_id)
    return {'ended', attempt, 0, '', '', ''}
  end

  local first = string.match(last[1], '^%d+') .. '-0'
  local entry = redis.call('XRANGE', stream, first, first)[1]
  local claim = record(entry)
  crashes = math.max(0, math.min(tonumber(claim.crashes) or 0, 1000))

  -- The reply of a claim was lost and its client sent it again: without the nonce it would be refused by itself.
  if last[1] == first and claim.nonce == nonce then
    local waited = type(claim.queued_ms) == 'number' and string.format('%.3f', claim.queued_ms) or ''
    return {answer(), attempt, crashes, waited, owner, entry[2][2]}
  end

  is_open = tail.type ~= 'release' and claim.worker == owner and holds(claim)
  if tail.type == 'release' then
    if tail.crashed == true then crashes = crashes + 1 end
  elseif type(claim.worker) ~= 'string' or redis.call('EXISTS', leases .. claim.worker) == 0 then
    -- It died, with the request in its engine if that had it.
    local second = record(redis.call('XRANGE', stream, '(' .. first, attempt .. '-18446744073709551615', 'COUNT', 1)[1])
    if second.type == 'start' or second.type == 'token' then crashes = crashes + 1 end
  elseif claim.worker ~= owner and holds(claim) then
    redis.call('HDEL', ledger, task_id)
    return {'busy', attempt, crashes, '', claim.worker, ''}
  end
end

-- The sweep took this worker for dead. The message waits in its queue again, or was fetched anew, perhaps by this very worker. A claim
-- would delete the ledger's entry, or void the later delivery's claim, and what this worker does not hold nobody gives back.
if not holds({worker = owner, delivery = delivery}) and (is_open or redis.call('HEXISTS', ledger, task_id) == 1) then
  return {'elsewhere', attempt, crashes, '', '', ''}
end

attempt = attempt + 1
local queued_ms = milliseconds_queued(redis.call('HGET', ledger, task_id))
local payload = claim_payload(attempt, owner, crashes, nonce, queued_ms, delivery)
write_claim(stream, channel, attempt, payload, nonce, ttl_ms)
redis.call('HDEL', ledger, task_id)
return {answer(), attempt, crashes, queued_ms, owner, payload}
