# expect: forgets that a secret can begin inside of a false start
class StreamFilter:
    def __init__(self, secret):
        self.secret, self.held = secret, ""

    def push(self, piece):
        out = ""
        for letter in piece:
            self.held += letter
            if self.held == self.secret:
                out, self.held = out + "[REDACTED]", ""
            elif not self.secret.startswith(self.held):
                out, self.held = out + self.held, ""
        return out

    def finish(self):
        return self.held
