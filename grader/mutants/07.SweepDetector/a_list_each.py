# expect: pass
class SweepDetector:
    """Keeps the skeletons themselves, as texts, and counts them anew each time."""

    def __init__(self, limit):
        self.limit, self.pages = limit, {}

    def check(self, user, prompt):
        words, skeletons = self.pages.setdefault(user, ([], []))
        this = " ".join(w if w in words else "*" for w in prompt.casefold().split())
        words += prompt.casefold().split()
        if "*" in this.split():
            skeletons.append(this)
            return skeletons.count(this) >= self.limit
        return False
