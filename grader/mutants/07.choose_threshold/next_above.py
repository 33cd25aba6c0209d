# expect: pass
def choose_threshold(benign, attacks, budget):
    # The first benign score that must not be flagged; the line is the next score above it.
    ranked = sorted(benign, reverse=True)
    allowed = max(n for n in range(len(benign) + 1) if n / len(benign) <= budget)
    forbidden = ranked[allowed]
    above = [score for score in benign + attacks if score > forbidden]
    line = min(above) if above else float("inf")
    found = [score for score in attacks if score >= line]
    return {"recall": len(found) / len(attacks), "threshold": line}
