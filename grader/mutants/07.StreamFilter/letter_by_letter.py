# expect: pass
class StreamFilter:
    """One letter at a time: a machine that falls back to the longest beginning that still fits."""

    def __init__(self, secret):
        self.secret, self.held = secret, ""

    def push(self, piece):
        out = []
        for letter in piece:
            self.held += letter
            if self.held == self.secret:
                out.append("[REDACTED]")
                self.held = ""
            while not self.secret.startswith(self.held):
                out.append(self.held[0])
                self.held = self.held[1:]
        return "".join(out)

    def finish(self):
        return self.held
