# expect: pools the gaps of all requests
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
    tpot = [b - a for times in tokens.values() for a, b in zip(times, times[1:])]
    count = sum(len(times) for times in tokens.values())
    span = max(times[-1] for times in tokens.values()) - min(arrived.values())
    return {
        "ttft": float(np.percentile(ttft, q)),
        "tpot": float(np.percentile(tpot, q)) if tpot else None,
        "throughput": 1000 * count / span,
    }
