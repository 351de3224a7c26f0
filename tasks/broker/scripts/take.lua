-- Takes further messages of a queue that a worker has just had one of, and notes that the worker holds them: both or neither.
-- At most half of them, so that idle workers find some, too.
--
-- KEYS  unacked messages, their index, then the lists of the queue, most urgent first
-- ARGV  the most messages, bytes after which no further one is looked at: Redis does nothing else meanwhile; the most bytes of
--       a message that anybody takes
-- Reply flat list of (delivery tag; '' if the message cannot be held, since it is not one of kombu's; message; which of the lists it
--       was in, from 0)
local unacked, index = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = string.format('%d.%06d', clock[1], clock[2])

local function held(message)
  if #message > tonumber(ARGV[3]) then return '' end
  local ok, decoded = pcall(cjson.decode, message)
  local properties = ok and type(decoded) == 'table' and decoded.properties
  local info = type(properties) == 'table' and properties.delivery_info
  if type(info) ~= 'table' then return '' end
  local tag, exchange, routing_key = properties.delivery_tag, info.exchange, info.routing_key
  if type(tag) ~= 'string' or type(exchange) ~= 'string' or type(routing_key) ~= 'string' then return '' end
  redis.call('ZADD', index, now, tag)
  redis.call('HSET', unacked, tag,
    '[' .. message .. ',' .. cjson.encode(exchange) .. ',' .. cjson.encode(routing_key) .. ']')
  return tag
end

local waiting = 0
for i = 3, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[i]) end
local left = math.min(ARGV[1], math.floor(waiting / 2))
local bytes = tonumber(ARGV[2])
local found = {}
for i = 3, #KEYS do
  while left > 0 and bytes > 0 do
    local message = redis.call('RPOP', KEYS[i])
    if not message then break end
    found[#found + 1] = held(message)
    found[#found + 1] = message
    found[#found + 1] = i - 3
    left, bytes = left - 1, bytes - #message
  end
end
return found
