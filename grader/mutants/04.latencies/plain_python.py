# expect: pass
def between(values, q):
    values = sorted(values)
    if not values:
        return None
    place = (len(values) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] * (1 - (place - low)) + values[high] * (place - low)


def latencies(log, q):
    first, last, count, came = {}, {}, {}, {}
    for time, kind, name in log:
        if kind == "arrives":
            came[name] = time
        if kind == "token":
            first.setdefault(name, time)
            last[name] = time
            count[name] = count.get(name, 0) + 1
    waits = [first[name] - came[name] for name in came]
    gaps = [(last[n] - first[n]) / (count[n] - 1) for n in came if count[n] >= 2]
    seconds = (max(last.values()) - min(came.values())) / 1000
    return {"tpot": between(gaps, q), "ttft": between(waits, q), "throughput": sum(count.values()) / seconds}
