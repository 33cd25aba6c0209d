# expect: has no answer where nothing fits
def choose_threshold(benign, attacks, budget):
    lines = sorted(set(benign) | set(attacks))
    for line in lines:
        if sum(score >= line for score in benign) / len(benign) <= budget:
            break
    return {"threshold": line, "recall": sum(score >= line for score in attacks) / len(attacks)}
