# expect: looks for the most right decisions
def choose_threshold(benign, attacks, budget):
    def right(line):
        return sum(score >= line for score in attacks) + sum(score < line for score in benign)

    best = max(benign + attacks, key=right)
    return {"threshold": best, "recall": sum(score >= best for score in attacks) / len(attacks)}
