# expect: learns words in the middle of a prompt
class SweepDetector:
    def __init__(self, limit):
        self.limit = limit
        self.known = {}
        self.counts = {}

    def check(self, user, prompt):
        known = self.known.setdefault(user, set())
        words = prompt.lower().split()
        skeleton = []
        for word in words:
            skeleton.append(word if word in known else "*")
            known.add(word)
        skeleton = tuple(skeleton)
        if "*" not in skeleton:
            return False
        key = (user, skeleton)
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key] >= self.limit
