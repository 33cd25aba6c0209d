# expect: pass
import numpy as np


def choose_threshold(benign, attacks, budget):
    benign, attacks = np.array(benign), np.array(attacks)
    lines = np.unique(np.concatenate([benign, attacks]))
    rates = (benign[None] >= lines[:, None]).mean(1)
    good = lines[rates <= budget]
    if not len(good):
        return {"threshold": np.inf, "recall": 0}
    return {"threshold": good[0], "recall": (attacks >= good[0]).mean()}
