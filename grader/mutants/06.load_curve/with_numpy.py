# expect: pass
import numpy as np


def load_curve(log):
    table = np.array(log)
    rows = []
    for users in np.unique(table[:, 0]):
        mine = table[table[:, 0] == users]
        good = mine[mine[:, 3] == 200]
        span = good[:, 2].max() - good[:, 1].min()
        rows.append([int(users), 1000 * good[:, 4].sum() / span, (good[:, 2] - good[:, 1]).mean()])
    return {"curve": rows, "knee": max(rows, key=lambda row: row[1] / row[2])[0]}
