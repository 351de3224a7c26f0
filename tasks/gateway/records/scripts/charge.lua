-- Counts what a request has cost, once, whichever gateways have read its answer, and gives back what was reserved beyond that.
-- A Redis that came back older than it was may lack the record, which is written again.
--
-- KEYS  the key's allowance, its open requests, its usage, the request's record
-- ARGV  tokens a minute (0: any number), tokens that were reserved, the request's id, tokens of the prompt, tokens of the answer,
--       the record, for how long it is kept (s)
-- Reply 1 if it was counted now
local allowance, open, usage, request = unpack(KEYS)
local per_minute, reserved, id, prompt, completion = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
redis.call('ZREM', open, id)
if redis.call('HSETNX', request, 'record', ARGV[6]) == 1 then redis.call('EXPIRE', request, ARGV[7]) end
if redis.call('HSETNX', request, 'charged', 1) == 0 then return 0 end
redis.call('HINCRBY', usage, 'prompt_tokens', prompt)
redis.call('HINCRBY', usage, 'completion_tokens', completion)
local tokens = redis.call('HGET', allowance, 'tokens')
if per_minute > 0 and tokens then
  local back = math.min(reserved, per_minute) - prompt - completion
  redis.call('HSET', allowance, 'tokens', tostring(math.min(per_minute, tokens + back)))
end
return 1
