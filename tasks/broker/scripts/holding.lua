-- Noting that a worker holds a message. Loaded before the scripts that do: fetch.lua, hold.lua and regain.lua.

-- Notes the text of a message, with exchange and routing key as JSON; 0 if this worker held it already. Of the messages of one call
-- ``number`` says which this is, because the sweep returns them in the order of their times.
local function note(unacked, index, tag, text, number)
  local clock = redis.call('TIME')
  redis.call('ZADD', index, string.format('%.6f', clock[1] + (clock[2] + number) / 1e6), tag)
  return redis.call('HSET', unacked, tag, text)
end

-- The delivery tag of a message that is noted now, as kombu notes it, and the message; '' if it cannot be, since it is not one of
-- kombu's, and nil if this worker holds this very message already: a reference to it was queued twice. ``number`` as above.
local function hold(unacked, index, message, number)
  local ok, decoded = pcall(cjson.decode, message)
  local properties = ok and type(decoded) == 'table' and decoded.properties
  local info = type(properties) == 'table' and properties.delivery_info
  if type(info) ~= 'table' then return '' end
  local tag, exchange, routing_key = properties.delivery_tag, info.exchange, info.routing_key
  if type(tag) ~= 'string' or type(exchange) ~= 'string' or type(routing_key) ~= 'string' then return '' end
  if string.find(tag, '[\128-\255]') then return '' end -- which may be no text
  local text = '[' .. message .. ',' .. cjson.encode(exchange) .. ',' .. cjson.encode(routing_key) .. ']'
  if note(unacked, index, tag, text, number) == 0 then return nil end
  return tag, decoded
end

