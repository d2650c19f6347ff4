-- Per-number limits, one atomic call per batch. See limits.py for the story.
--
-- KEYS[1]            marker: run id of the server that counted, and the epoch second from which on it knows everything
-- KEYS[2i], KEYS[2i+1]  for message i: holder of its content (a string), today's messages to its number (a set)
-- ARGV[1] messages per day (0 = no limit)      ARGV[2] milliseconds one content holds a number (0 = no limit)
-- ARGV[3] seconds until the day's set may go   ARGV[4] now, ARGV[5] end of today (epoch seconds, the caller's database clock)
-- ARGV[6] "1" when the caller brings what Postgres knows
-- ARGV[4+3i] id of message i   ARGV[5+3i] today's ids for its number, comma-separated   ARGV[6+3i] holder of its content
--
-- Returns {"seed"} when Redis may have forgotten something and the caller must bring it, else one word per message,
-- each followed by the number's count: "ok", "duplicate" or "capped".

local per_day, hold_ms, ttl, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local marked, complete = unpack(redis.call('HMGET', KEYS[1], 'run', 'complete'))
if marked ~= run then
  complete = tonumber(ARGV[5]) + hold_ms / 1000
  redis.call('HSET', KEYS[1], 'run', run, 'complete', complete)
end
if now < tonumber(complete) and ARGV[6] ~= '1' then
  return {'seed'}
end

local answer = {}
for i = 1, (#KEYS - 1) / 2 do
  local content, day, id = KEYS[2 * i], KEYS[2 * i + 1], ARGV[4 + 3 * i]
  for known in string.gmatch(ARGV[5 + 3 * i], '[^,]+') do
    redis.call('SADD', day, known)
    redis.call('EXPIRE', day, ttl)
  end
  local holder = redis.call('GET', content)
  if not holder and ARGV[6 + 3 * i] ~= '' then
    holder = ARGV[6 + 3 * i]
  end
  local count = redis.call('SCARD', day)
  if hold_ms > 0 and holder and holder ~= id then
    answer[#answer + 1] = 'duplicate'
  elseif per_day > 0 and count >= per_day and redis.call('SISMEMBER', day, id) == 0 then
    answer[#answer + 1] = 'capped'
  else
    count = count + redis.call('SADD', day, id)
    redis.call('EXPIRE', day, ttl)
    if hold_ms > 0 then
      redis.call('SET', content, id, 'PX', hold_ms)
    end
    answer[#answer + 1] = 'ok'
  end
  answer[#answer + 1] = count
end
return answer
