# expect: stays below the budget where it may reach it
def choose_threshold(benign, attacks, budget):
    best = float("inf")
    for line in sorted(benign + attacks, reverse=True):
        flagged = sum(score >= line for score in benign)
        if flagged / len(benign) >= budget:
            break
        best = line
    return {"threshold": best, "recall": sum(score >= best for score in attacks) / len(attacks)}
