# expect: counts requests, not tokens
class TokenLimiter:
    def __init__(self, tokens_per_minute):
        self.limit = tokens_per_minute
        self.admitted = {}

    def admit(self, user, tokens, now):
        held = [entry for entry in self.admitted.get(user, []) if now - entry[0] < 60]
        self.admitted[user] = held
        left = sum(amount for _, amount in held)
        if left + 1 <= self.limit:
            held.append([now, 1])
            return 0
        for moment, amount in held:
            left -= amount
            if left + 1 <= self.limit:
                return moment + 60 - now

    def settle(self, user, used):
        pass
