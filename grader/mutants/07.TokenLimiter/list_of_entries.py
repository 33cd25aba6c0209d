# expect: pass
class TokenLimiter:
    def __init__(self, tokens_per_minute):
        self.limit = tokens_per_minute
        self.admitted = {}

    def admit(self, user, tokens, now):
        if tokens > self.limit:
            return None
        held = [entry for entry in self.admitted.get(user, []) if now - entry[0] < 60]
        self.admitted[user] = held
        left = sum(amount for _, amount in held)
        if left + tokens <= self.limit:
            held.append([now, tokens])
            return 0
        for moment, amount in held:
            left -= amount
            if left + tokens <= self.limit:
                return moment + 60 - now

    def settle(self, user, used):
        self.admitted[user][-1][1] = used
