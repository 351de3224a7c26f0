-- Takes further messages of a queue that a worker has just had one of, and notes that the worker holds them: both or neither.
-- At most half of them, so that idle workers find some, too. Stands behind reference.lua and holding.lua.
--
-- KEYS  unacked messages, their index, ledger, then the lists of the queue, most urgent first
-- ARGV  the most messages, bytes after which no further one is looked at: Redis does nothing else meanwhile; the most bytes of
--       a message that anybody takes
-- Reply flat list of (delivery tag; '' if the message cannot be held, since it is not one of kombu's; message; which of the lists it
--       was in, from 0)
local unacked, index, ledger = KEYS[1], KEYS[2], KEYS[3]

local waiting = 0
for i = 4, #KEYS do waiting = waiting + redis.call('LLEN', KEYS[i]) end
local left = math.min(ARGV[1], math.floor(waiting / 2))
local bytes = tonumber(ARGV[2])
local found = {}
for i = 4, #KEYS do
  while left > 0 and bytes > 0 do
    local item = redis.call('RPOP', KEYS[i])
    if not item then break end
    left = left - 1
    local message = message_of(ledger, item)
    if message then
      found[#found + 1] = #message <= tonumber(ARGV[3]) and hold(unacked, index, message, #found) or ''
      found[#found + 1] = message
      found[#found + 1] = i - 4
      bytes = bytes - #message
    end
  end
end
return found
