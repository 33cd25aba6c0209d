# expect: reports the share of flagged texts that are attacks
def choose_threshold(benign, attacks, budget):
    best = float("inf")
    for line in sorted(benign + attacks, reverse=True):
        flagged = sum(score >= line for score in benign)
        if flagged / len(benign) > budget:
            break
        best = line
    return {"threshold": best, "recall": sum(s >= best for s in attacks) / max(1, sum(s >= best for s in attacks + benign))}
