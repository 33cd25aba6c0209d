# expect: returns the wrong type
import numpy as np


def latencies(log, q):
    arrived, started, tokens = {}, {}, {}
    for time, kind, name in log:
        if kind == "arrives":
            arrived[name] = time
        elif kind == "starts":
            started[name] = time
        else:
            tokens.setdefault(name, []).append(time)
    ttft = [times[0] - arrived[name] for name, times in tokens.items()]
    tpot = [(times[-1] - times[0]) / (len(times) - 1) for times in tokens.values() if len(times) > 1]
    count = sum(len(times) for times in tokens.values())
    span = max(times[-1] for times in tokens.values()) - min(arrived.values())
    return float(np.percentile(ttft, q)), float(np.percentile(tpot, q)) if tpot else None, 1000 * count / span
