-- Reads how long the next request of each list has waited: of the workers' lanes, and of the queues' own lists where a queue has such
-- a lane. Lanes that are empty are left out. Stands behind reference.lua.
--
-- KEYS  lists beside those of the queues, ledger, hash of the workers that have lanes
-- ARGV  what stands behind a queue's name in those of its further lists, seconds after which a worker is silent, the priorities with
--       commas between, then the queues
-- Reply flat list of (list; node of the worker, '' for a queue's own list; ms since its next request was queued; ms for how long
--       only this worker takes it, 0 if the worker is gone; its length)
local ledger, workers = KEYS[2], KEYS[3]
local separator, live_s = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local found, queues = {}, {}

local function add(list, node, only_ms)
  local item = redis.call('LINDEX', list, -1)
  if not item then return end
  -- In another client's message kombu would write the id at the end; quotes inside of texts are escaped.
  local id = referred(item) or string.match(item, '.*"correlation_id": ?"([^"\\]+)"')
  local entry = id and redis.call('HGET', ledger, id)
  local at = entry and string.match(entry, '"at": ?([%d.]+)')
  local wait_ms = entry and string.match(entry, '^{"at":[%d.]+,"wait_ms":(%d+)')
  found[#found + 1] = list
  found[#found + 1] = node
  found[#found + 1] = at and math.max(0, math.floor((now - at) * 1000)) or 0
  found[#found + 1] = math.min(only_ms, tonumber(wait_ms or 0))
  found[#found + 1] = redis.call('LLEN', list)
end

local function is_live(node)
  local value = redis.call('HGET', workers, node)
  local at = value and string.match(value, '^[%d.]+')
  return at and now - at < live_s
end

for _, list in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  for i = 4, #ARGV do
    local prefix = ARGV[i] .. separator
    if string.sub(list, 1, #prefix) == prefix then
      local node = string.match(list, '^%d+@>(.+)$', #prefix + 1)
      if node then
        add(list, node, is_live(node) and math.huge or 0)
        queues[ARGV[i]] = true
      end
    end
  end
end
for queue in pairs(queues) do
  for step in string.gmatch(ARGV[3], '%d+') do
    add(step == '0' and queue or queue .. separator .. step, '', 0)
  end
end
return found
