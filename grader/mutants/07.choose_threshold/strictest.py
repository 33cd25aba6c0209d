# expect: draws the line as high as possible
def choose_threshold(benign, attacks, budget):
    for line in sorted(benign + attacks, reverse=True):
        if sum(score >= line for score in benign) / len(benign) <= budget:
            return {"threshold": line, "recall": sum(score >= line for score in attacks) / len(attacks)}
    return {"threshold": float("inf"), "recall": 0.0}
