-- The health of SMS providers, for all workers, by the clock of Redis. See provider_choice.py.
-- Each key: a hash of ok:<n> and bad:<n> (messages in the n-th slice of ten seconds); while the provider is demoted
-- also down (epoch seconds of the demotion), until, pause (seconds), probing (epoch seconds at which the probe's
-- time ends), and reason.
-- ARGV[1] "look", ARGV[2]: seconds a probe may take, 0 to grant none.
-- Returns per key 0 (fine), 1 (demoted), 2 (probe it).
-- ARGV[1] "note": KEYS[1]; ARGV[2] ok, [3] bad, [4] reason, [5] 1 if these were probes, [6] share, [7] sample,
-- [8] pause. Returns 1 if the call demoted the provider, 2 if it ended the demotion, else 0.
local SLICE, SLICES, LONGEST, KEEP = 10, 6, 600, 86400
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

if ARGV[1] == 'look' then
  local answers = {}
  for i, key in ipairs(KEYS) do
    local row = redis.call('HMGET', key, 'down', 'until', 'probing')
    if not row[1] then
      answers[i] = 0
    elseif tonumber(ARGV[2]) > 0 and now >= tonumber(row[2]) and now >= (tonumber(row[3]) or 0) then
      redis.call('HSET', key, 'probing', tostring(now + ARGV[2]))
      answers[i] = 2
    else
      answers[i] = 1
    end
  end
  return answers
end

local key, ok, bad = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local row = redis.call('HMGET', key, 'down', 'pause')
if row[1] then
  -- Outcomes of messages that were under way before the demotion are ignored.
  if ARGV[5] ~= '1' then return 0 end
  if bad == 0 then
    redis.call('DEL', key)
    return 2
  end
  local pause = math.min(LONGEST, row[2] * 2)
  redis.call('HSET', key, 'until', tostring(now + pause), 'pause', tostring(pause), 'reason', ARGV[4])
  redis.call('HDEL', key, 'probing')
  redis.call('EXPIRE', key, KEEP)
  return 0
end

local slice = math.floor(now / SLICE)
if ok > 0 then redis.call('HINCRBY', key, 'ok:' .. slice, ok) end
if bad > 0 then redis.call('HINCRBY', key, 'bad:' .. slice, bad) end
redis.call('EXPIRE', key, SLICE * SLICES)
local sums = {ok = 0, bad = 0}
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local kind, at = string.match(all[i], '^(%a+):(%d+)$')
  if tonumber(at) <= slice - SLICES then
    redis.call('HDEL', key, all[i])
  else
    sums[kind] = sums[kind] + all[i + 1]
  end
end
local total = sums.ok + sums.bad
if bad > 0 and total >= tonumber(ARGV[7]) and sums.bad >= total * ARGV[6] then
  redis.call('HSET', key, 'down', tostring(now), 'until', tostring(now + ARGV[8]), 'pause', ARGV[8], 'reason', ARGV[4])
  redis.call('EXPIRE', key, KEEP)
  return 1
end
return 0
