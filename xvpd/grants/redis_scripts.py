"""What the Redis store does inside Redis: one Lua script for each operation, so that each is one step for all nodes.

What is kept (every time in milliseconds of Redis's own clock, every key with an end of its own):

``xvpd:grant:<digest>``
    hash: the grant as JSON (``grant``) and what of it scripts need (``id``, ``vm``, ``user``, ``issuer``, ``uses``,
    ``expires``, ``resume``; ``network``, the bits that its clients' addresses begin with; ``max``, its max_duration);
    ``used``; ``began``, when its first session redeemed; ``revoked``; ``rights``, the moments until which rights to resume
    are good; for each session that has redeemed, ``open:<session>``, what it took: ``use``, or the moment of a right;
    ``open``, their number
``xvpd:id:<grant id>``
    the grant's digest
``xvpd:grants``, ``xvpd:vm:<uuid>``, ``xvpd:user:<user>``
    sorted sets of digests, each scored with the end of its grant's hash: an entry whose hash is gone is out of date by its
    score, is never returned, and is dropped by the next that touches the set. A set ends when its last entry does
``xvpd:session:<id>``
    a live session as JSON, for the length of a lease
``xvpd:sessions``, ``xvpd:at:vm:…``, ``xvpd:at:host:…``, ``xvpd:at:user:…``
    sorted sets of sessions' ids, each scored with the end of its lease
``xvpd:killed:<session id>``
    a session that was to be cut
``xvpd:nodes``
    sorted set of the nodes' names, each scored with the moment until which it counts as alive

Scripts answer with one string each: txredisapi spends a turn of the reactor on every element of a longer answer. They
replicate their effects, not themselves, so that reading the clock is no obstacle to writing (Redis 5 and newer).
"""

from typing import Final

_COMMON: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function after_now() return '(' .. now, '+inf' end

-- The right to resume that lapses soonest, and the others; those that have lapsed are left out.
local function soonest(rights)
  local first, others = nil, {}
  for right in string.gmatch(rights or '', '%d+') do
    right = tonumber(right)
    if right > now then
      if first and first <= right then
        others[#others + 1] = right
      else
        others[#others + 1] = first
        first = right
      end
    end
  end
  return first, others
end

-- When a grant's max_duration is over.
local function over(max, began)
  if not began or max == '0' then return math.huge end
  return tonumber(began) + tonumber(max)
end

local function redeemable(uses, used, expires, revoked, rights, max, began)
  if revoked or over(max, began) <= now then return false end
  local used_up = tonumber(uses) > 0 and tonumber(used) >= tonumber(uses)
  return soonest(rights) or (tonumber(expires) > now and not used_up)
end

local function enter(set, member, till)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, till, member)
  if redis.call('PTTL', set) < till - now then redis.call('PEXPIREAT', set, till) end
end

-- Put off the end of a grant and of all that points to it.
local function keep(digest, till)
  local key = 'xvpd:grant:' .. digest
  if redis.call('PTTL', key) >= till - now then return end
  local names = redis.call('HMGET', key, 'id', 'vm', 'user')
  redis.call('PEXPIREAT', key, till)
  redis.call('SET', 'xvpd:id:' .. names[1], digest, 'PX', till - now)
  enter('xvpd:grants', digest, till)
  enter('xvpd:vm:' .. names[2], digest, till)
  enter('xvpd:user:' .. names[3], digest, till)
end
"""

ISSUE: Final = (
    _COMMON
    + """
local digest, id, vm, user, issuer, uses, ttl, resume, grant, tombstone, network, max = unpack(ARGV)
local key = 'xvpd:grant:' .. digest
if redis.call('EXISTS', key, 'xvpd:id:' .. id) > 0 then return 'known' end
local expires = now + tonumber(ttl)
redis.call('HSET', key, 'grant', grant, 'id', id, 'vm', vm, 'user', user, 'issuer', issuer,
  'uses', uses, 'used', 0, 'expires', expires, 'resume', resume, 'network', network, 'max', max)
keep(digest, expires + tonumber(tombstone))
return 'kept'
"""
).encode()
"""Answers ``kept`` or ``known``."""

REDEEM: Final = (
    _COMMON
    + """
local digest, session, client = unpack(ARGV)
local key = 'xvpd:grant:' .. digest
local grant, uses, used, expires, revoked, rights, taken, network, max, began = unpack(redis.call('HMGET', key,
  'grant', 'uses', 'used', 'expires', 'revoked', 'rights', 'open:' .. session, 'network', 'max', 'began'))
if not grant then return 'token_unknown' end
if revoked then return 'token_revoked' end
if string.sub(client, 1, #network) ~= network then return 'token_elsewhere' end
if taken then return 'token_used' end
if over(max, began) <= now then return 'token_expired' end
local counted, expired = tonumber(uses) > 0, tonumber(expires) <= now
local right, others
if counted or expired then right, others = soonest(rights) end
if right then
  redis.call('HSET', key, 'rights', table.concat(others, ' '))
elseif counted and tonumber(used) >= tonumber(uses) then
  return 'token_used'
elseif expired then
  return 'token_expired'
else
  redis.call('HINCRBY', key, 'used', 1)
end
redis.call('HSET', key, 'open:' .. session, right or 'use')
redis.call('HINCRBY', key, 'open', 1)
if not began then redis.call('HSET', key, 'began', now) end
return ((counted or right or (max ~= '0' and not began)) and '!' or '=') .. grant
"""
).encode()
"""Takes a digest, a session's id, and the bits of its client's address. Answers the word of a `Reason`; or the grant, behind
``!`` when something was taken that must not be taken twice, or begun that must not begin anew, behind ``=`` when not."""

GIVE_BACK: Final = (
    _COMMON
    + """
local digest, session = unpack(ARGV)
local key = 'xvpd:grant:' .. digest
local took = redis.call('HGET', key, 'open:' .. session)
if not took then return 'nothing' end
redis.call('HDEL', key, 'open:' .. session)
redis.call('HINCRBY', key, 'open', -1)
if took == 'use' then
  if redis.call('HINCRBY', key, 'used', -1) == 0 then redis.call('HDEL', key, 'began') end
else
  redis.call('HSET', key, 'rights', (redis.call('HGET', key, 'rights') or '') .. ' ' .. took)
end
return 'given'
"""
).encode()

ENDED: Final = (
    _COMMON
    + """
local digest, session, resumable, tombstone = unpack(ARGV)
local key = 'xvpd:grant:' .. digest
if redis.call('HDEL', key, 'open:' .. session) == 0 then return 'nothing' end
redis.call('HINCRBY', key, 'open', -1)
local revoked, rights, resume, max, began = unpack(redis.call('HMGET', key, 'revoked', 'rights', 'resume', 'max', 'began'))
if resumable == '1' and not revoked then
  local first, others = soonest(rights)
  local till = math.min(now + tonumber(resume), over(max, began))
  others[#others + 1] = first
  others[#others + 1] = till
  redis.call('HSET', key, 'rights', table.concat(others, ' '))
  keep(digest, till + tonumber(tombstone))
end
return 'ended'
"""
).encode()

REVOKE: Final = (
    _COMMON
    + """
local kind, value, any_issuer, issuer, tombstone, channel, message = unpack(ARGV)
local digests = {}
if kind == 'digest' then
  digests = {value}
elseif kind == 'grant' then
  digests = {redis.call('GET', 'xvpd:id:' .. value) or nil}
elseif kind == 'session' then
  redis.call('SET', 'xvpd:killed:' .. value, 1, 'PX', tombstone)
else
  digests = redis.call('ZRANGEBYSCORE', 'xvpd:' .. kind .. ':' .. value, after_now())
end
local ended = 0
for _, digest in ipairs(digests) do
  local key = 'xvpd:grant:' .. digest
  local by, open, uses, used, expires, revoked, rights, max, began = unpack(
    redis.call('HMGET', key, 'issuer', 'open', 'uses', 'used', 'expires', 'revoked', 'rights', 'max', 'began'))
  if by and not revoked and (any_issuer == '1' or by == issuer)
      and (tonumber(open or 0) > 0 or redeemable(uses, used, expires, revoked, rights, max, began)) then
    redis.call('HSET', key, 'revoked', 1)
    keep(digest, now + tonumber(tombstone))
    ended = ended + 1
  end
end
redis.call('PUBLISH', channel, message)
local nodes = redis.call('ZRANGEBYSCORE', 'xvpd:nodes', after_now())
return ended .. '\\n' .. table.concat(nodes, '\\n')
"""
).encode()
"""Answers lines: how many grants were ended, and the name of every live node. Whether an issuer's user or anyone's is meant is
for the script to tell: names of users are indexed without their issuer's."""

LEASE: Final = (
    _COMMON
    + """
local id, digest, record, lease, tombstone = unpack(ARGV, 1, 5)
local revoked, known, max, began = unpack(redis.call('HMGET', 'xvpd:grant:' .. digest, 'revoked', 'id', 'max', 'began'))
if revoked then return 'revoked' end
if redis.call('EXISTS', 'xvpd:killed:' .. id) == 1 then return 'killed' end
lease, tombstone = tonumber(lease), tonumber(tombstone)
for n = 6, #ARGV, 3 do
  local name, set, cap = ARGV[n], 'xvpd:at:' .. ARGV[n] .. ':' .. ARGV[n + 1], tonumber(ARGV[n + 2])
  if cap > 0 and not redis.call('ZSCORE', set, id) and redis.call('ZCOUNT', set, after_now()) >= cap then return name end
end
for n = 6, #ARGV, 3 do enter('xvpd:at:' .. ARGV[n] .. ':' .. ARGV[n + 1], id, now + lease) end
enter('xvpd:sessions', id, now + lease)
redis.call('SET', 'xvpd:session:' .. id, record, 'PX', lease)
if known and redis.call('PTTL', 'xvpd:grant:' .. digest) < lease + tombstone then
  -- Generously, so that not every renewal has to move the end.
  keep(digest, now + lease + tombstone + 600000)
end
local ends = over(max, began)
return ends < math.huge and 'leased ' .. math.max(0, ends - now) or 'leased'
"""
).encode()
"""Takes a name, a value and a cap (0: none) for each thing that the session counts at. Answers ``leased``, with what is left
of the grant's max_duration if it has one, ``revoked``, ``killed``, or the name whose cap is reached. Renewing is the same
without caps."""

RELEASE: Final = b"""
local id = ARGV[1]
redis.call('ZREM', 'xvpd:sessions', id)
redis.call('DEL', 'xvpd:session:' .. id)
for n = 2, #ARGV, 2 do redis.call('ZREM', 'xvpd:at:' .. ARGV[n] .. ':' .. ARGV[n + 1], id) end
return 'released'
"""

STANDING: Final = b"""
local standing = {}
for n = 1, #ARGV, 2 do
  local revoked, known = unpack(redis.call('HMGET', 'xvpd:grant:' .. ARGV[n + 1], 'revoked', 'id'))
  if revoked then standing[#standing + 1] = 'r'
  elseif redis.call('EXISTS', 'xvpd:killed:' .. ARGV[n]) == 1 then standing[#standing + 1] = 'k'
  else standing[#standing + 1] = known and '.' or '?' end
end
return table.concat(standing)
"""
"""Takes pairs of a session's id and its grant's digest. Answers a letter for each: ``r`` revoked, ``k`` killed, ``?`` its
grant is unknown, ``.`` nothing against it."""

LIST: Final = (_COMMON + "return table.concat(redis.call('ZRANGEBYSCORE', ARGV[1], after_now()), '\\n')").encode()
"""Answers the members of a sorted set that are not out of date, a line each."""

READ_GRANTS: Final = (
    _COMMON
    + """
local any_issuer, issuer, grants = ARGV[1], ARGV[2], {}
for n = 3, #ARGV do
  local grant, by, uses, used, expires, revoked, rights, max, began = unpack(redis.call('HMGET', 'xvpd:grant:' .. ARGV[n],
    'grant', 'issuer', 'uses', 'used', 'expires', 'revoked', 'rights', 'max', 'began'))
  if grant and (any_issuer == '1' or by == issuer) and redeemable(uses, used, expires, revoked, rights, max, began) then
    grants[#grants + 1] = grant
  end
end
return table.concat(grants, '\\n')
"""
).encode()
"""Takes digests. Answers those grants that can be redeemed, a line each."""

READ_SESSIONS: Final = b"""
local sessions = {}
for _, id in ipairs(ARGV) do
  sessions[#sessions + 1] = redis.call('GET', 'xvpd:session:' .. id) or nil
end
return table.concat(sessions, '\\n')
"""

BEAT: Final = (
    _COMMON
    + """
local node, life, channel, message = unpack(ARGV)
enter('xvpd:nodes', node, now + tonumber(life))
redis.call('PUBLISH', channel, message)
return 'beaten'
"""
).encode()
"""Keeps a node among the live ones, and lets it hear of it."""
