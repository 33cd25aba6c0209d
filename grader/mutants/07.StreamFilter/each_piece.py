# expect: filters each piece by itself
class StreamFilter:
    def __init__(self, secret):
        self.secret = secret
        self.held = ""

    def push(self, piece):
        *clean, rest = (self.held + piece).split(self.secret)
        cut = len(rest)
        self.held = rest[cut:]
        return "".join(part + "[REDACTED]" for part in clean) + rest[:cut]

    def finish(self):
        rest, self.held = self.held, ""
        return rest
