# expect: ignores the order of the words
class SweepDetector:
    def __init__(self, limit):
        self.limit = limit
        self.known = {}
        self.counts = {}

    def check(self, user, prompt):
        known = self.known.setdefault(user, set())
        words = prompt.lower().split()
        skeleton = tuple(word if word in known else "*" for word in words)
        known.update(words)
        if "*" not in skeleton:
            return False
        key = (user, tuple(sorted(skeleton)))
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key] >= self.limit
