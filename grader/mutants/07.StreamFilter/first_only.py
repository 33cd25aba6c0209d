# expect: removes the secret only once
class StreamFilter:
    def __init__(self, secret):
        self.secret, self.held, self.found = secret, "", False

    def push(self, piece):
        text = self.held + piece
        self.held = ""
        if self.found:
            return text
        if self.secret in text:
            self.found = True
            return text.replace(self.secret, "[REDACTED]", 1)
        n = len(self.secret) - 1
        while not text.endswith(self.secret[:n]):
            n -= 1
        self.held = text[len(text) - n :]
        return text[: len(text) - n]

    def finish(self):
        return self.held
