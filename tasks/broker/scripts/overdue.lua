-- One page of the ledger: what was submitted so long ago that its claim should be there. Messages stay in Redis.
--
-- KEYS  ledger
-- ARGV  cursor, entries in a page, age (s)
-- Reply next cursor, flat list of (task id, its list as a JSON string; '' if the entry cannot be read)
local clock = redis.call('TIME')
local before = clock[1] + clock[2] / 1e6 - ARGV[3]
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found = {}
for i = 1, #page[2], 2 do
  -- Quotes inside the message are escaped, so neither pattern can match there.
  local at = tonumber(string.match(page[2][i + 1], '"at": ?([%d.eE+]+)'))
  local list = string.match(page[2][i + 1], '"queue": ?("[^"]*")')
  if not at or not list or at < before then
    found[#found + 1] = page[2][i]
    found[#found + 1] = at and list or ''
  end
end
return {page[1], found}
