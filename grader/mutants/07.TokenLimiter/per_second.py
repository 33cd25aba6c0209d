# expect: pass
from collections import defaultdict


class TokenLimiter:
    """A counter for each second; nothing is ever thrown away."""

    def __init__(self, tokens_per_minute):
        self.most = tokens_per_minute
        self.spent = defaultdict(lambda: defaultdict(int))
        self.latest = {}

    def load(self, user, now):
        return sum(tokens for second, tokens in self.spent[user].items() if now - 60 < second)

    def admit(self, user, tokens, now):
        if tokens > self.most:
            return None
        wait = 0
        while self.load(user, now + wait) + tokens > self.most:
            wait += 1
        if wait == 0:
            self.spent[user][now] += tokens
            self.latest[user] = now, tokens
        return wait

    def settle(self, user, used):
        second, reserved = self.latest[user]
        self.spent[user][second] -= reserved - used
