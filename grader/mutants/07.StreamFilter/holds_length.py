# expect: always holds back as many characters as the secret has
class StreamFilter:
    def __init__(self, secret):
        self.secret = secret
        self.held = ""

    def push(self, piece):
        *clean, rest = (self.held + piece).split(self.secret)
        cut = max(0, len(rest) - len(self.secret) + 1)
        self.held = rest[cut:]
        return "".join(part + "[REDACTED]" for part in clean) + rest[:cut]

    def finish(self):
        rest, self.held = self.held, ""
        return rest
