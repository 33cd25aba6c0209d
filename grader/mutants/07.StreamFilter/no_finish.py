# expect: lacks a method
class StreamFilter:
    def __init__(self, secret):
        self.secret = secret
        self.held = ""

    def push(self, piece):
        *clean, rest = (self.held + piece).split(self.secret)
        for n in range(len(self.secret) - 1, -1, -1):
            if rest.endswith(self.secret[:n]):
                break
        cut = len(rest) - n
        self.held = rest[cut:]
        return "".join(part + "[REDACTED]" for part in clean) + rest[:cut]

    def close(self):
        rest, self.held = self.held, ""
        return rest
