-- Queues the messages whose time has come, in the order of their times. An item of a schedule is the message's list in Redis, a line
-- break, and what goes into the list.
--
-- KEYS  the schedules of queues
-- ARGV  messages in one call
-- Reply how many were queued; ms until the next one is due ('' if there is none)
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local left = tonumber(ARGV[1])
local next_at
for _, schedule in ipairs(KEYS) do
  local found = redis.call('ZRANGE', schedule, '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, left)
  for _, item in ipairs(found) do
    local break_at = string.find(item, '\n', 1, true)
    redis.call('LPUSH', string.sub(item, 1, break_at - 1), string.sub(item, break_at + 1))
    redis.call('ZREM', schedule, item)
  end
  left = left - #found
  local first = redis.call('ZRANGE', schedule, 0, 0, 'WITHSCORES')
  if first[2] and (not next_at or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
end
return {ARGV[1] - left, next_at and string.format('%d', math.max(0, (next_at - now) * 1000)) or ''}
