# expect: takes a place in the sorted list, whatever stands beside it
def choose_threshold(benign, attacks, budget):
    allowed = int(budget * len(benign))
    ranked = sorted(benign, reverse=True)
    line = ranked[allowed - 1] if allowed else min([s for s in attacks if s > ranked[0]], default=float("inf"))
    return {"threshold": line, "recall": sum(score >= line for score in attacks) / len(attacks)}
