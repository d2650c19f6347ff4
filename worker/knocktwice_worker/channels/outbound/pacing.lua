-- A token bucket that all workers share, by the clock of Redis, and the queues (lanes) of messages. See pacing.py.
-- KEYS[1]: hash of next (epoch seconds at which the next unit may go), pause (epoch seconds until which none may go),
--   cut, cut_at, and for each lane the end of its queue (the moment at which a message that joins now gets its turn).
-- ARGV[1]: units per second. ARGV[2]: burst, seconds of units that may go at once. ARGV[3]: mode.
-- mode "take", ARGV[4]: lane. ARGV[5]: the number of first messages that go before those that join the queue now.
--   ARGV[6…]: cost of each message. Returns the number of first messages that may go now, and for each other one the
--   seconds until it should ask again.
-- mode "slow", ARGV[4]: seconds of the pause. Halves the rate, which doubles again every RECOVERY seconds.
local RECOVERY, LEAST, KEPT = 10, 1 / 64, 3600
local LANES = {'singles', 'blasts'}
local time = redis.call('TIME')
local bucket = redis.call('HMGET', KEYS[1], 'next', 'pause', 'cut', 'cut_at', LANES[1], LANES[2])
local now = time[1] + time[2] / 1000000
local next_at, pause = tonumber(bucket[1]) or 0, tonumber(bucket[2]) or 0
local lines = {[LANES[1]] = tonumber(bucket[5]) or 0, [LANES[2]] = tonumber(bucket[6]) or 0}
local factor = 1
if bucket[3] then
  factor = math.min(1, bucket[3] * 2 ^ ((now - bucket[4]) / RECOVERY))
end

-- The key must not expire before the longest wait that was returned is over.
local function keep(until_)
  redis.call('EXPIRE', KEYS[1], math.ceil(math.max(KEPT, until_ - now + KEPT)))
end

if ARGV[3] == 'slow' then
  -- The answers to one batch arrive together, so they halve the rate only once.
  if not bucket[4] or now - bucket[4] > 1 then
    redis.call('HSET', KEYS[1], 'cut', tostring(math.max(LEAST, factor / 2)), 'cut_at', tostring(now))
  end
  pause = math.max(pause, now + ARGV[4])
  redis.call('HSET', KEYS[1], 'pause', tostring(pause))
  keep(pause)
  return {0, tostring(tonumber(ARGV[4]))}
end

local rate, lane, entitled = ARGV[1] * factor, ARGV[4], tonumber(ARGV[5])
local start = math.max(next_at, now - ARGV[2])
local queued, share = false, 1
for name, line in pairs(lines) do
  if line > now then
    if name == lane then queued = true else share = 0.5 end
  end
end
-- The bucket was not used for as long as it can save units, so the messages in the queue have missed their turns.
local idle = next_at <= now - ARGV[2]
local open = pause <= now
local granted, soon, out = 0, math.max(start, now, pause), {0}
for i = 6, #ARGV do
  local cost, first = ARGV[i] / rate, lane == 'none' or i - 5 <= entitled
  -- A message may go if the bucket is not empty. Otherwise a message that costs more than a burst could never go.
  if open and start <= now and (first or idle or not queued) then
    start = start + cost
    granted = granted + 1
    soon = math.max(soon, start)
  else
    -- After the first message that may not go, no later one may go, so that the order is kept.
    open = false
    if first then
      out[#out + 1] = tostring(soon - now)
      soon = soon + cost
    else
      local place = math.max(lines[lane], soon)
      out[#out + 1] = tostring(place - now)
      lines[lane] = place + cost / share
    end
  end
end
if granted > 0 then
  redis.call('HSET', KEYS[1], 'next', tostring(start))
end
if lines[lane] and lines[lane] > now then
  redis.call('HSET', KEYS[1], lane, tostring(lines[lane]))
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  keep(math.max(pause, lines[lane] or 0))
end
out[1] = granted
return out
