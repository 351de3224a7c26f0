-- References: what a request's list, or schedule, has in the place of its message, which is in the ledger alone. Loaded before the
-- scripts that write or read lists (tasks/broker/queues/references.py). The messages of other tasks, and of other clients, are in the lists
-- themselves.
--
-- Before this stands REFERENCE, with which no message begins.
local function reference(task_id) return REFERENCE .. task_id end

-- The request that an item of a list refers to; nil for a message.
local function referred(item)
  if string.sub(item, 1, #REFERENCE) == REFERENCE then return string.sub(item, #REFERENCE + 1) end
end

-- The message that an item of a list stands for, and, of a request, its id, its entry in the ledger as text and as a table; nil where
-- the request was claimed, or purged, meanwhile.
local function message_of(ledger, item)
  local task_id = referred(item)
  if not task_id then return item end
  local entry = redis.call('HGET', ledger, task_id) or ''
  local ok, record = pcall(cjson.decode, entry)
  if ok and type(record) == 'table' and type(record.message) == 'string' and not record.purged then
    return record.message, task_id, entry, record
  end
end
