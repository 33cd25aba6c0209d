# expect: holds back too little
class StreamFilter:
    def __init__(self, secret):
        self.secret = secret
        self.held = ""

    def push(self, piece):
        *clean, rest = (self.held + piece).split(self.secret)
        for n in range(1, len(self.secret)):
            if rest.endswith(self.secret[:n]):
                break
        else:
            n = 0
        cut = len(rest) - n
        self.held = rest[cut:]
        return "".join(part + "[REDACTED]" for part in clean) + rest[:cut]

    def finish(self):
        rest, self.held = self.held, ""
        return rest
