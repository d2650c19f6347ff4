-- Per-number limits and the day's budget, one atomic call per batch. per_number.py and budget.py explain both.
--
-- The limits stand in levels: level 1 is the installation's, each other one a project's own, the trial's, or what is tried of
-- a project's own. A message passes if each of its levels but those that are tried lets it pass, and is then counted in all
-- of them. A trial stops nothing: it says what it would have done, and counts only what it would have let pass, as if it had
-- been in force all along.
--
-- KEYS[1]            marker: run id of the server that counted with the names of its projects, and epoch second from
--                    which its counters are complete
-- KEYS[1+l]          the day's budget of level l: run id that counted, parts by category and in total,
--                    and id of each SMS -> category:parts
-- then for each message and each of its levels: holder of its content (a string), today's messages to its number (a set)
-- ARGV[1] seconds after which the day's keys expire
-- ARGV[2] now, ARGV[3] end of today (epoch seconds, the caller's database clock)
-- ARGV[4] "1" if the caller sends the numbers' rows from Postgres
-- ARGV[5] the longest time between equal contents, in milliseconds    ARGV[6] names of the projects with own limits
-- ARGV[7] number of levels    ARGV[8] which of them is the installation's trial (0 = none); it counts every message
-- then for each level eight values:
--   messages per day (0 = no limit), milliseconds between equal contents to a number (0 = any),
--   parts a day (0 = no limit), of these only for critical, parts a day of transactional, marketing, critical,
--   the day's use of the budget from Postgres, as budget.py writes it, or ""
-- then for each message: id, parts, category, the level of its project and that of what its project tries (0 = none), and for
--   each of its levels, those that are tried last, today's ids for its number, comma-separated, and the holder of its content
--
-- Returns {"seed", numbers, budget of each level} if the counters may be incomplete and the caller must send the rows,
-- else for each message a word ("ok", "duplicate", "capped" or "exhausted"), the number's count, and the day's parts in
-- total and in its category. A message with a project has four more: "1" if its project's limits refused it, and the same
-- three figures of the project. Each level that is tried has four more: its word, and its three figures.

local ttl, now = tonumber(ARGV[1]), tonumber(ARGV[2])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local trial, levels, at = tonumber(ARGV[8]), {}, 8
for l = 1, tonumber(ARGV[7]) do
  local level = {
    budget = KEYS[1 + l],
    per_day = tonumber(ARGV[at + 1]),
    hold_ms = tonumber(ARGV[at + 2]),
    total = tonumber(ARGV[at + 3]),
    reserve = tonumber(ARGV[at + 4]),
    transactional = tonumber(ARGV[at + 5]),
    marketing = tonumber(ARGV[at + 6]),
    critical = tonumber(ARGV[at + 7]),
    spent = ARGV[at + 8],
  }
  level.limited = level.total + level.transactional + level.marketing + level.critical > 0
  level.forgot = level.limited and redis.call('HGET', level.budget, 'run') ~= run
  levels[l] = level
  at = at + 8
end

-- A project that was given limits of its own since has no counters yet, so they are incomplete, too.
local counted_by = run .. ARGV[6]
local marked, complete = unpack(redis.call('HMGET', KEYS[1], 'run', 'complete'))
if marked ~= counted_by then
  complete = tonumber(ARGV[3]) + tonumber(ARGV[5]) / 1000
  redis.call('HSET', KEYS[1], 'run', counted_by, 'complete', complete)
end
local incomplete = now < tonumber(complete)
local seed, wanted = {'seed', incomplete and 1 or 0}, incomplete and ARGV[4] ~= '1'
for _, level in ipairs(levels) do
  seed[#seed + 1] = level.forgot and 1 or 0
  wanted = wanted or (level.forgot and level.spent == '')
end
if wanted then
  return seed
end

local function spent(level, category)
  local parts = redis.call('HMGET', level.budget, 'total', category)
  return tonumber(parts[1]) or 0, tonumber(parts[2]) or 0
end

local function affords(level, id, category, parts)
  if not level.limited or redis.call('HEXISTS', level.budget, id) == 1 then
    return true
  end
  local all, own = spent(level, category)
  local most = level.total - (category == 'critical' and 0 or level.reserve)
  local allowed = level[category]
  return not ((level.total > 0 and all + parts > most) or (allowed > 0 and own + parts > allowed))
end

local function spend(level, id, category, parts)
  if level.limited and redis.call('HEXISTS', level.budget, id) == 0 then
    redis.call('HSET', level.budget, id, category .. ':' .. parts)
    redis.call('HINCRBY', level.budget, 'total', parts)
    redis.call('HINCRBY', level.budget, category, parts)
  end
end

for _, level in ipairs(levels) do
  if level.forgot then
    redis.call('DEL', level.budget)
    redis.call('HSET', level.budget, 'run', run)
    redis.call('EXPIRE', level.budget, ttl)
    local done, held = string.match(level.spent, '([^;]*);(.*)')
    local transactional, marketing, critical = string.match(done, '(%d+),(%d+),(%d+)')
    redis.call('HSET', level.budget, 'transactional', transactional, 'marketing', marketing, 'critical', critical,
               'total', transactional + marketing + critical)
    for id, category, parts, sure in string.gmatch(held, '([^:,]+):(%a+):(%d+):(%a)') do
      if sure == 'c' or affords(level, id, category, tonumber(parts)) then
        spend(level, id, category, tonumber(parts))
      end
    end
  end
end

-- What one level says about a message; the rows from Postgres are taken in on the way.
local function look(level, id, category, parts, content, day, known, known_holder)
  local listed, own = 0, false
  for one in string.gmatch(known, '[^,]+') do
    redis.call('SADD', day, one)
    listed, own = listed + 1, own or one == id
  end
  if level.per_day > 0 and listed >= level.per_day and not own then
    -- It was counted after a wipe, and before others were committed that had been counted earlier: these go before it.
    redis.call('SREM', day, id)
  end
  local holder = redis.call('GET', content)
  if not holder and known_holder ~= '' then
    holder = known_holder
  end
  local count = redis.call('SCARD', day)
  if listed > 0 then
    redis.call('EXPIRE', day, ttl)
  end
  if level.hold_ms > 0 and holder and holder ~= id then
    return 'duplicate', count
  elseif level.per_day > 0 and count >= level.per_day and redis.call('SISMEMBER', day, id) == 0 then
    return 'capped', count
  elseif not affords(level, id, category, parts) then
    return 'exhausted', count
  end
  return 'ok', count
end

local function count_in(level, id, category, parts, content, day, count)
  spend(level, id, category, parts)
  local added = redis.call('SADD', day, id)
  if count == 0 then
    -- The key is new, and its name has the day: it need not live longer when more is counted.
    redis.call('EXPIRE', day, ttl)
  end
  if level.hold_ms > 0 then
    redis.call('SET', content, id, 'PX', level.hold_ms)
  end
  return count + added
end

local answer, key = {}, 1 + #levels
while at < #ARGV do
  local id, parts, category, project = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], tonumber(ARGV[at + 4])
  local own = project > 0 and {levels[1], levels[project]} or {levels[1]}
  local in_force, tried = #own, tonumber(ARGV[at + 5])
  for _, level in ipairs({trial, tried}) do
    if level > 0 then
      own[#own + 1] = levels[level]
    end
  end
  at = at + 5
  local words, counts, refused = {}, {}, nil
  for l, level in ipairs(own) do
    words[l], counts[l] = look(level, id, category, parts, KEYS[key + 2 * l - 1], KEYS[key + 2 * l],
                               ARGV[at + 2 * l - 1], ARGV[at + 2 * l])
    if words[l] ~= 'ok' and l <= in_force and not refused then
      refused = l
    end
  end
  if not refused then
    for l, level in ipairs(own) do
      if words[l] == 'ok' then
        counts[l] = count_in(level, id, category, parts, KEYS[key + 2 * l - 1], KEYS[key + 2 * l], counts[l])
      end
    end
  end
  for l, level in ipairs(own) do
    answer[#answer + 1] = l == 1 and words[refused or 1] or l > in_force and words[l] or (refused == l and 1 or 0)
    answer[#answer + 1] = counts[l]
    local all, of_category = 0, 0
    if level.limited then
      all, of_category = spent(level, category)
    end
    answer[#answer + 1] = all
    answer[#answer + 1] = of_category
  end
  at = at + 2 * #own
  key = key + 2 * #own
end
return answer
