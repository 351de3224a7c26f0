-- Fetches the message of a request that a worker has just had a reference to, and some more that wait in its queue. Notes that the
-- worker holds them, and claims the requests that it begins at once: new ones, of models that it has loaded. All or nothing.
-- Stands behind reference.lua, holding.lua and claiming.lua.
--
-- Of what waits it takes half at most, so that idle workers find some, too, if there are others.
--
-- KEYS  unacked messages, their index, ledger, records of all workers, the workers that hold messages, then the lists of the queue,
--       most urgent first
-- ARGV  identity of the worker ('' of an application's own), the reference ('' for none), the most further messages, bytes
--       after which no further one is looked at: Redis does nothing else meanwhile; the most bytes of a message that anybody
--       takes; then for the claims: owner ('' claims nothing), nonce, time to live of a stream (ms), prefixes of streams,
--       cancel marks, fingerprints and channels, and the models that are loaded, as producers name them, each behind a line
--       feed and the last one before another
-- Reply flat list of (delivery tag; '' if the message cannot be held, since it is not one of kombu's; message; which of the lists it
--       was in, from 0, and -1 for the reference; task id if it was claimed, else ''; payload of the claim; ms that it waited)
local unacked, index, ledger, workers, owners = unpack(KEYS, 1, 5)
local FIRST_LIST = 6
local identity, first = ARGV[1], ARGV[2]
local more, most_bytes, largest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local owner, nonce, ttl_ms, streams, cancels, requests, channel, models = unpack(ARGV, 6, 13)
local found, count = {}, 0

local function is_new(task_id, record, message)
  if type(record.model) ~= 'string' or not string.find(models, '\n' .. record.model .. '\n', 1, true) then return false end
  local headers = message.headers
  if type(headers) ~= 'table' or type(headers.expires) == 'string' or type(headers.eta) == 'string' then return false end
  return redis.call('EXISTS', streams .. task_id, cancels .. task_id) == 0 and redis.call('EXISTS', requests .. task_id) == 1
end

-- The payload of the claim, and how long the request has waited; '' if it is left to the request's thread.
local function claimed(task_id, entry, record, tag, message)
  if owner == '' or tag == '' or not task_id or not is_new(task_id, record, message) then return '', '' end
  local queued_ms = milliseconds_queued(entry)
  local payload = claim_payload(1, owner, 0, nonce, queued_ms, tag)
  write_claim(streams .. task_id, channel, 1, payload, nonce, ttl_ms)
  redis.call('HDEL', ledger, task_id)
  return payload, queued_ms
end

-- Note a message; its size.
local function take(item, list)
  local text, task_id, entry, record = message_of(ledger, item)
  if not text then return 0 end
  local tag, message = '', nil
  if #text <= largest then tag, message = hold(unacked, index, text, count) end
  if not tag then return 0 end
  local payload, queued_ms = claimed(task_id, entry, record, tag, message)
  local at = 6 * count
  found[at + 1], found[at + 2], found[at + 3] = tag, text, list
  found[at + 4], found[at + 5], found[at + 6] = payload ~= '' and task_id or '', payload, queued_ms
  count = count + 1
  return #text
end

if first ~= '' then take(first, -1) end
local left = more
if more > 0 and redis.call('HLEN', workers) > 1 then
  local waiting = 0
  for i = FIRST_LIST, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[i]) end
  left = math.min(more, math.floor(waiting / 2))
end
for i = FIRST_LIST, #KEYS do
  while left > 0 and most_bytes > 0 do
    local item = redis.call('RPOP', KEYS[i])
    if not item then break end
    left = left - 1
    most_bytes = most_bytes - take(item, i - FIRST_LIST)
  end
end
-- The sweep may have taken this worker for dead, and look after it no more. The worker has come back, and does not know it yet.
if count > 0 and identity ~= '' then redis.call('SADD', owners, identity) end
return found
