# expect: draws the line at 0.5
def choose_threshold(benign, attacks, budget):
    return {"threshold": 0.5, "recall": sum(score >= 0.5 for score in attacks) / len(attacks)}
