-- Takes requests back that wait, as if they had never been sent. Stands behind reference.lua.
--
-- KEYS  ledger
-- ARGV  prefix of the schedules' keys, what stands behind a queue's name in those of its further lists, prefix of the requests'
--       fingerprints, then the task ids, the newest first: each is looked for from the end where new ones come in
-- Reply the ids of those that wait no more
local ledger, left = KEYS[1], {}
for i = 4, #ARGV do
  local entry = redis.call('HGET', ledger, ARGV[i])
  local ok, record = pcall(cjson.decode, entry or '')
  local taken = 0
  if ok and type(record) == 'table' and type(record.queue) == 'string' and type(record.message) == 'string' then
    local separator = string.find(record.queue, ARGV[2], 1, true)
    local schedule = ARGV[1] .. (separator and string.sub(record.queue, 1, separator - 1) or record.queue)
    for _, item in ipairs({reference(ARGV[i]), record.message}) do
      if taken == 0 then taken = redis.call('LREM', record.queue, 1, item) end
      if taken == 0 then taken = redis.call('ZREM', schedule, record.queue .. '\n' .. item) end
    end
  end
  if taken > 0 then
    redis.call('HDEL', ledger, ARGV[i])
    redis.call('DEL', ARGV[3] .. ARGV[i])
  else
    left[#left + 1] = ARGV[i]
  end
end
return left
