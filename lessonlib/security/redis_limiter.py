"""The same limits for several processes or machines: counted in one Redis server, decided by one Lua script there.

Redis runs a script as one step, so requests and tokens are read, compared and charged with nothing in between. The
time is the server's own: clients' clocks need not agree. A user is one key that expires with the last slice that
counts, so memory follows the users of the last minute. Keep ``maxmemory-policy noeviction`` (Redis's default): a
server that throws keys away to save memory gives fresh budgets away.

Source: EVAL and its guarantees, https://redis.io/docs/latest/develop/programmability/eval-intro/.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .rate_limiter import SLICE, WINDOW, Decision, Limiter, LimitReason, Reservation

# As in rate_limiter.py, but for indices that begin at 1. Returns a reason (0: admitted) and the ms to wait, or the
# moment of admission.
SCRIPT = f"""
local WINDOW, SLICE = {WINDOW}, {SLICE}
local most_requests, most_tokens, action = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local tokens, reserved_at, micros = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not micros then
  local time = redis.call('TIME')
  micros = time[1] * 1000000 + time[2]
end
local now, moment = math.floor(micros / 1000), math.ceil(micros / 1000)

local stored = redis.call('GET', KEYS[1])
local old = stored and cmsgpack.unpack(stored) or {{0, 0, 0}}
local last = old[#old - 2]
local set_back = #old > 3 and last > moment + WINDOW
if set_back then -- the server's clock was set back: nobody may be shut out until then
  for i = 4, #old, 3 do old[i] = old[i] + moment - last end
  old[1], last = old[1] + moment - last, moment
end
moment = math.max(moment, last)

local user = {{old[1], old[2], old[3]}}
for i = 4, #old, 3 do
  if old[i] + WINDOW <= now then
    user[2], user[3] = user[2] - old[i + 1], user[3] - old[i + 2]
  else
    for j = i, i + 2 do user[#user + 1] = old[j] end
  end
end

local function charge(requests, tokens)
  if #user == 3 or moment - user[1] >= SLICE then
    user[1] = moment
    for _, value in ipairs({{moment, 0, 0}}) do user[#user + 1] = value end
  end
  local n = #user
  user[n - 2], user[n - 1], user[n] = moment, user[n - 1] + requests, user[n] + tokens
  user[2], user[3] = user[2] + requests, user[3] + tokens
end

local answer = {{0, moment}}
if action == 'admit' then
  local requests, excess = user[2] + 1 - most_requests, user[3] + tokens - most_tokens
  if requests > 0 or excess > 0 then
    local reason, i = requests > 0 and 1 or 2, 1 -- slices begin at 4
    while requests > 0 or excess > 0 do
      i = i + 3
      requests, excess = requests - user[i + 1], excess - user[i + 2]
    end
    answer = {{reason, user[i] + WINDOW - now}}
  else
    charge(1, tokens)
  end
elseif tokens > 0 then
  charge(0, tokens)
elseif reserved_at + WINDOW > now then
  for i = 4, #user, 3 do
    if user[i] >= reserved_at then
      local change = math.max(tokens, -user[i + 2])
      user[i + 2], user[3] = user[i + 2] + change, user[3] + change
      break
    end
  end
end
if #user > 3 and (answer[1] == 0 or set_back) then
  redis.call('SET', KEYS[1], cmsgpack.pack(user), 'PX', user[#user - 2] + WINDOW - now)
end
return answer
"""
REASONS = (None, LimitReason.REQUESTS, LimitReason.TOKENS)


class LimiterUnavailable(RuntimeError):
    """Redis does not answer, so nobody knows what was used: nothing may be admitted (HTTP 503)."""


class RedisRateLimiter(Limiter):
    """Limits per user, shared by every process that names the same server and prefix. Threads may share one.

    >>> limiter = RedisRateLimiter("redis://127.0.0.1:6379/0", requests_per_minute=60)

    url: as for ``redis.Redis.from_url``, "rediss://" and "unix://" included; calls give up after a second. They block:
    from an event loop, make them in a thread. Keys are a prefix and a hash of the user's name, so that they are short
    and tell nothing. clock: in tests, seconds to use instead of the server's time.

    ``check`` and ``reserve`` raise LimiterUnavailable. ``settle`` only logs it: the reservation ends with its minute.
    """

    def __init__(
        self,
        url: str,
        requests_per_minute: int = 60,
        tokens_per_minute: int = 100_000,
        prefix: str = "rate:",
        clock: Callable[[], float] | None = None,
    ):
        super().__init__(requests_per_minute, tokens_per_minute)
        # Never repeated: if only the answer was lost, a second settling would give back twice.
        client = redis.Redis.from_url(
            url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        self.prefix = prefix
        self._script = client.register_script(SCRIPT)
        self._clock = clock

    def _decide(self, decision: Decision, user_id: str, tokens: int) -> int:
        code, moment = self._run("admit", user_id, tokens)
        if reason := REASONS[code]:
            self._exceeded(decision, reason, moment)
        return moment

    def _change(self, reservation: Reservation, tokens: int) -> None:
        try:
            self._run("settle", reservation.user_id, tokens, reservation.at)
        except LimiterUnavailable as error:
            logging.getLogger(__name__).warning("a reservation could not be settled: %s", error)

    def _run(self, action: str, user_id: str, tokens: int, at: int = 0) -> tuple[int, int]:
        name = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        micros = round(self._clock() * 1_000_000) if self._clock else ""
        limits = (self.requests_per_minute, self.tokens_per_minute)
        try:
            return self._script([self.prefix + name], [*limits, action, tokens, at, micros])
        except redis.RedisError as error:
            raise LimiterUnavailable(
                f"The Redis server that counts requests does not answer as it should ({type(error).__name__}), so "
                "none can be admitted; see that it runs and has memory left."
            ) from error
