-- Makes scheduled requests due at once: they were cancelled, and a worker is to end them. Stands behind reference.lua.
--
-- KEYS  ledger
-- ARGV  prefix of the schedules' keys, what stands behind a queue's name in those of its further lists, then the task ids
-- Reply how many were scheduled
local count = 0
for i = 3, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  local ok, record = pcall(cjson.decode, entry or '')
  if ok and type(record) == 'table' and type(record.queue) == 'string' and type(record.message) == 'string' then
    local separator = string.find(record.queue, ARGV[2], 1, true)
    local schedule = ARGV[1] .. (separator and string.sub(record.queue, 1, separator - 1) or record.queue)
    for _, item in ipairs({reference(ARGV[i]), record.message}) do
      count = count + redis.call('ZADD', schedule, 'XX', 'CH', 0, record.queue .. '\n' .. item)
    end
  end
end
return count
