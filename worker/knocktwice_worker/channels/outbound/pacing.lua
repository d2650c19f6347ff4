-- A token bucket that all workers share, by the clock of Redis. See pacing.py.
-- KEYS[1]: hash of next (epoch seconds at which the next unit may go), pause (until then nothing may), cut, cut_at.
-- ARGV[1]: units per second. ARGV[2]: burst, seconds of units that may go at once. ARGV[3]: mode.
-- mode "take", ARGV[4…]: cost of each message. Returns how many of them may go now, and seconds until the next may.
-- mode "slow", ARGV[4]: seconds nothing may go. Halves the rate; it doubles again every RECOVERY seconds.
local RECOVERY, LEAST = 10, 1 / 64
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'next', 'pause', 'cut', 'cut_at')
local next_at, pause = tonumber(bucket[1]) or 0, tonumber(bucket[2]) or 0
local factor = 1
if bucket[3] then
  factor = math.min(1, bucket[3] * 2 ^ ((now - bucket[4]) / RECOVERY))
end

if ARGV[3] == 'slow' then
  -- The answers to one batch arrive together; they are one sign, not five hundred.
  if not bucket[4] or now - bucket[4] > 1 then
    redis.call('HSET', KEYS[1], 'cut', tostring(math.max(LEAST, factor / 2)), 'cut_at', tostring(now))
  end
  redis.call('HSET', KEYS[1], 'pause', tostring(math.max(pause, now + ARGV[4])))
  redis.call('EXPIRE', KEYS[1], 3600)
  return {0, tostring(tonumber(ARGV[4]))}
end

if pause > now then
  return {0, tostring(pause - now)}
end
local rate = ARGV[1] * factor
local start = math.max(next_at, now - ARGV[2])
local granted = 0
for i = 4, #ARGV do
  -- A message may go once the bucket holds anything: one that costs more than a burst would never go otherwise.
  if start > now then break end
  start = start + ARGV[i] / rate
  granted = granted + 1
end
if granted > 0 then
  redis.call('HSET', KEYS[1], 'next', tostring(start))
  redis.call('EXPIRE', KEYS[1], 3600)
end
return {granted, tostring(math.max(0, start - now))}
