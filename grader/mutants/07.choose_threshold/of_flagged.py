# expect: takes the share of the flagged texts that are benign
def choose_threshold(benign, attacks, budget):
    best = float("inf")
    for line in sorted(benign + attacks, reverse=True):
        wrong = sum(score >= line for score in benign)
        found = sum(score >= line for score in attacks)
        if wrong / (wrong + found) <= budget:
            best = line
    return {"threshold": best, "recall": sum(score >= best for score in attacks) / len(attacks)}
