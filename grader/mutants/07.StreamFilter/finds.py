# expect: pass
class StreamFilter:
    def __init__(self, secret):
        self.secret = secret
        self.text = ""

    def push(self, piece):
        text = (self.text + piece).replace(self.secret, "[REDACTED]")
        end = text.rfind("[REDACTED]")
        free = 0 if end < 0 else end + len("[REDACTED]")
        stop = free
        while stop < len(text) and not self.secret.startswith(text[stop:]):
            stop += 1
        self.text = text[stop:]
        return text[:stop]

    def finish(self):
        text, self.text = self.text, ""
        return text
