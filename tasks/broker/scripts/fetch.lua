-- Fetches the message of a request that a worker has just had a reference to, and notes that the worker holds it. Stands behind
-- reference.lua and holding.lua. Run twice it does the same again.
--
-- KEYS  unacked messages, their index, ledger
-- ARGV  the reference
-- Reply delivery tag ('' if the message cannot be held) and message; {} where the request was claimed, or purged, meanwhile
local message = message_of(KEYS[3], ARGV[1])
if not message then return {} end
return {hold(KEYS[1], KEYS[2], message, 0), message}
