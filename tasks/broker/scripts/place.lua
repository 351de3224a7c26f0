-- Where a request waits: the worker in whose lane it is put. Loaded before a script that queues requests (put.lua).
--
-- A worker where the longest known beginning of the prompt is warm, the least busy of several. Where it has far more to do than
-- the others, or the beginning is warm nowhere, the first worker with room in the order that a hash of the shortest beginning gives
-- (rendezvous hashing): requests that begin alike and come together meet there.
--
-- Before this stand LIVE_S, for how long a worker is believed that takes requests from its lane, and WARM_S, for how long a beginning
-- counts as warm (tasks/broker/queues/lanes.py).

-- How long a request waits for a worker that is chosen by the hash alone; it had room when it was chosen.
local COLD_WAIT_MS = 100
-- Above the mean load a worker takes so many times as much, and so many requests more: of what is warm there, and of the rest.
local WARM_FACTOR, WARM_MORE = 2, 2
local COLD_FACTOR, COLD_MORE = 1.25, 1

-- A hash as a table; nil where this user may not read it, as under rules of an earlier version.
local function fields(key)
  local flat = redis.pcall('HGETALL', key)
  if type(flat) ~= 'table' or flat.err then return nil end
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- The workers that take requests of a queue from their lanes, by node: slots, and messages that they hold; their number and the mean.
local function serving(affinity, unacked, queue, now)
  local live, count, total = {}, 0, 0
  for node, value in pairs(fields(affinity .. 'workers') or {}) do
    local at, identity, queues = string.match(value, '^([%d.]+) (%S+) (.*)$')
    local _, last = string.find(queues or '', '|' .. queue .. '=', 1, true)
    local slots = last and tonumber(string.match(queues, '^%d+', last + 1))
    if slots and now - tonumber(at) < LIVE_S then
      local held = redis.pcall('HLEN', unacked .. identity)
      if type(held) ~= 'number' then return {}, 0, 0 end
      live[node] = {slots = slots, load = held}
      count, total = count + 1, total + held
    end
  end
  return live, count, total / math.max(1, count)
end

-- The least busy worker where the longest known beginning is warm, and for how many ms a request is worth waiting for it.
local function warmest(affinity, live, digests, now)
  for digest in string.gmatch(digests, '[^,]+') do
    local best, wait_ms
    for node, value in pairs(fields(affinity .. 'warm:' .. digest) or {}) do
      local at, wait = string.match(value, '^([%d.]+) (%d+)$')
      if live[node] and at and now - tonumber(at) < WARM_S and (not best or live[node].load < live[best].load) then
        best, wait_ms = node, tonumber(wait)
      end
    end
    if best then return best, wait_ms end
  end
end

-- Of the workers with room that have no more to do than the others, the first in the order that the hash gives.
local function hashed(live, mean, digest)
  local best, highest
  for node, worker in pairs(live) do
    if worker.load < worker.slots and worker.load <= COLD_FACTOR * mean + COLD_MORE then
      local rank = redis.sha1hex(digest .. node)
      if not best or rank > highest then best, highest = node, rank end
    end
  end
  return best
end

-- What is known of the workers that take requests of a queue from their lanes; a script reads it once.
--
-- affinity, unacked: prefixes of keys; lane: what stands before a node in the name of its lane; now: Unix seconds
local function fleet_of(affinity, unacked, queue, lane, now)
  local live, count, mean = serving(affinity, unacked, queue, now)
  if count > 1 then
    for node, worker in pairs(live) do worker.load = worker.load + redis.call('LLEN', lane .. node) end
  end
  return {live = live, count = count, mean = mean}
end

local function chosen(fleet, affinity, digests, cold, now)
  local live, mean = fleet.live, fleet.mean
  local node, wait_ms = warmest(affinity, live, digests, now)
  if node then
    local worker = live[node]
    if worker.load >= worker.slots or worker.load <= WARM_FACTOR * mean + WARM_MORE then return node, wait_ms end
  elseif not cold then
    return nil
  end
  return hashed(live, mean, string.match(digests, '[^,]+$')), COLD_WAIT_MS
end

-- The node, and for how many ms only this worker takes the request, which is in its lane then; nil where any worker may.
--
-- digests: of the beginnings, the longest first, with commas between; cold: whether a request without a warm worker gets one by the
-- hash
local function place(fleet, affinity, digests, cold, now)
  if fleet.count < 2 then return nil end
  local node, wait_ms = chosen(fleet, affinity, digests, cold, now)
  if node then fleet.live[node].load = fleet.live[node].load + 1 end
  return node, wait_ms
end
