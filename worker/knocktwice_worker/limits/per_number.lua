-- Per-number limits and the day's budget, one atomic call per batch. per_number.py and budget.py explain both.
--
-- KEYS[1]            marker: run id of the server that counted, and epoch second from which its counters are complete
-- KEYS[2]            the day's budget: run id that counted, parts by category and in total,
--                    and id of each SMS -> category:parts
-- KEYS[2i+1], KEYS[2i+2]  for message i: holder of its content (a string), today's messages to its number (a set)
-- ARGV[1] messages per day (0 = no limit)      ARGV[2] milliseconds between equal contents to a number (0 = any)
-- ARGV[3] seconds after which the day's keys expire
-- ARGV[4] now, ARGV[5] end of today (epoch seconds, the caller's database clock)
-- ARGV[6] "1" if the caller sends the numbers' rows from Postgres
-- ARGV[7] parts a day (0 = no limit)           ARGV[8] of these only for critical
-- ARGV[9…11] parts a day of transactional, marketing, critical (0 = no limit)
-- ARGV[12] the day's use of the budget from Postgres, as budget.py writes it, or ""
-- ARGV[8+5i] id of message i   ARGV[9+5i] today's ids for its number, comma-separated
-- ARGV[10+5i] holder of its content
-- ARGV[11+5i] its parts        ARGV[12+5i] its category
--
-- Returns {"seed", numbers, budget} if the counters may be incomplete and the caller must send the rows, else for each
-- message a word ("ok", "duplicate", "capped" or "exhausted"), the number's count, and the day's parts in total and
-- in its category.

local per_day, hold_ms, ttl, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local budget = KEYS[2]
local total, reserve = tonumber(ARGV[7]), tonumber(ARGV[8])
local categories = {transactional = tonumber(ARGV[9]), marketing = tonumber(ARGV[10]), critical = tonumber(ARGV[11])}
local limited = total + categories.transactional + categories.marketing + categories.critical > 0

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local marked, complete = unpack(redis.call('HMGET', KEYS[1], 'run', 'complete'))
if marked ~= run then
  complete = tonumber(ARGV[5]) + hold_ms / 1000
  redis.call('HSET', KEYS[1], 'run', run, 'complete', complete)
end
local forgot_budget = limited and redis.call('HGET', budget, 'run') ~= run
local wants_numbers = now < tonumber(complete) and ARGV[6] ~= '1'
if wants_numbers or (forgot_budget and ARGV[12] == '') then
  return {'seed', now < tonumber(complete) and 1 or 0, forgot_budget and 1 or 0}
end

local function spent(category)
  local parts = redis.call('HMGET', budget, 'total', category)
  return tonumber(parts[1]) or 0, tonumber(parts[2]) or 0
end

local function spend(id, category, parts, certain)
  if not limited or redis.call('HEXISTS', budget, id) == 1 then
    return true
  end
  local all, own = spent(category)
  local most = total - (category == 'critical' and 0 or reserve)
  local allowed = categories[category]
  if not certain and ((total > 0 and all + parts > most) or (allowed > 0 and own + parts > allowed)) then
    return false
  end
  redis.call('HSET', budget, id, category .. ':' .. parts)
  redis.call('HINCRBY', budget, 'total', parts)
  redis.call('HINCRBY', budget, category, parts)
  return true
end

if forgot_budget then
  redis.call('DEL', budget)
  redis.call('HSET', budget, 'run', run)
  redis.call('EXPIRE', budget, ttl)
  local done, held = string.match(ARGV[12], '([^;]*);(.*)')
  local transactional, marketing, critical = string.match(done, '(%d+),(%d+),(%d+)')
  redis.call('HSET', budget, 'transactional', transactional, 'marketing', marketing, 'critical', critical,
             'total', transactional + marketing + critical)
  for id, category, parts, sure in string.gmatch(held, '([^:,]+):(%a+):(%d+):(%a)') do
    spend(id, category, tonumber(parts), sure == 'c')
  end
end

local answer = {}
for i = 1, (#KEYS - 2) / 2 do
  local content, day, id = KEYS[2 * i + 1], KEYS[2 * i + 2], ARGV[8 + 5 * i]
  local seeded = false
  for known in string.gmatch(ARGV[9 + 5 * i], '[^,]+') do
    redis.call('SADD', day, known)
    seeded = true
  end
  local holder = redis.call('GET', content)
  if not holder and ARGV[10 + 5 * i] ~= '' then
    holder = ARGV[10 + 5 * i]
  end
  local count = redis.call('SCARD', day)
  if seeded then
    redis.call('EXPIRE', day, ttl)
  end
  if hold_ms > 0 and holder and holder ~= id then
    answer[#answer + 1] = 'duplicate'
  elseif per_day > 0 and count >= per_day and redis.call('SISMEMBER', day, id) == 0 then
    answer[#answer + 1] = 'capped'
  elseif not spend(id, ARGV[12 + 5 * i], tonumber(ARGV[11 + 5 * i]), false) then
    answer[#answer + 1] = 'exhausted'
  else
    local added = redis.call('SADD', day, id)
    if count == 0 then
      -- The key is new, and its name has the day: it need not live longer when more is counted.
      redis.call('EXPIRE', day, ttl)
    end
    count = count + added
    if hold_ms > 0 then
      redis.call('SET', content, id, 'PX', hold_ms)
    end
    answer[#answer + 1] = 'ok'
  end
  answer[#answer + 1] = count
  local all, own = 0, 0
  if limited then
    all, own = spent(ARGV[12 + 5 * i])
  end
  answer[#answer + 1] = all
  answer[#answer + 1] = own
end
return answer
