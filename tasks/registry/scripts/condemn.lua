-- Marks a worker that has neither a lease nor a record as swept, so that it cannot go on where it was once it wakes up.
--
-- KEYS  lease, mark that this boot was swept
-- ARGV  life of a mark (s)
-- Reply 1 if it may be swept, 0 if it lives
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
return 1
