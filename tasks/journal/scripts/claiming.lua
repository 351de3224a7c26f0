-- Writing a claim. Loaded before the scripts that do: claim.lua, and fetch.lua of the queues.

-- For how long a request has waited (ms), by its entry in the ledger; '' if that does not say.
local function milliseconds_queued(entry)
  -- Not decoded: the entry holds the whole message. Inside that, every quotation mark is escaped.
  local at = entry and tonumber(string.match(entry, '"at"%s*:%s*([%d.]+)'))
  if not at then return '' end
  local now = redis.call('TIME')
  return string.format('%.3f', math.max(0, (now[1] - at) * 1000 + now[2] / 1000))
end

local function claim_payload(attempt, owner, crashes, nonce, queued_ms, delivery)
  return string.format(
    '{"v":1,"type":"claim","attempt":%d,"worker":%s,"crashes":%d,"nonce":%s,"queued_ms":%s,"delivery":%s}',
    attempt, cjson.encode(owner), crashes, cjson.encode(nonce), queued_ms == '' and 'null' or queued_ms, cjson.encode(delivery))
end

local function write_claim(stream, channel, attempt, payload, nonce, ttl_ms)
  redis.call('XADD', stream, string.format('%d-0', attempt), 'd', payload, 'c', nonce)
  redis.call('PEXPIRE', stream, ttl_ms)
  redis.call('PUBLISH', channel .. stream, payload)
end

