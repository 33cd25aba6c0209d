# expect: holds everything back until the end
class StreamFilter:
    def __init__(self, secret):
        self.secret, self.pieces = secret, []

    def push(self, piece):
        self.pieces.append(piece)
        return ""

    def finish(self):
        return "".join(self.pieces).replace(self.secret, "[REDACTED]")
