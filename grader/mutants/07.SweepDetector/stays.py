# expect: never takes it back
class SweepDetector:
    def __init__(self, limit):
        self.limit = limit
        self.known = {}
        self.counts = {}
        self.caught = set()

    def check(self, user, prompt):
        known = self.known.setdefault(user, set())
        words = prompt.lower().split()
        skeleton = tuple(word if word in known else "*" for word in words)
        known.update(words)
        if "*" not in skeleton:
            return user in self.caught
        key = (user, skeleton)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] >= self.limit:
            self.caught.add(user)
        return user in self.caught
