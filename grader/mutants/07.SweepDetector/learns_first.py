# expect: learns the words before it looks for new ones
class SweepDetector:
    def __init__(self, limit):
        self.limit = limit
        self.known = {}
        self.counts = {}

    def check(self, user, prompt):
        known = self.known.setdefault(user, set())
        words = prompt.lower().split()
        known.update(words)
        skeleton = tuple(word if word in known else "*" for word in words)
        if "*" not in skeleton:
            return False
        key = (user, skeleton)
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key] >= self.limit
