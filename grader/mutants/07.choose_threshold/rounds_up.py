# expect: rounds the budget up
import math


def choose_threshold(benign, attacks, budget):
    allowed = math.ceil(budget * len(benign))
    fitting = [line for line in benign + attacks if sum(s >= line for s in benign) <= allowed]
    best = min(fitting, default=float("inf"))
    return {"threshold": best, "recall": sum(score >= best for score in attacks) / len(attacks)}
