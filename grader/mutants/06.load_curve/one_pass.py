# expect: pass
def load_curve(log):
    found = {}
    for users, sent, end, status, tokens in log:
        load = found.setdefault(users, {"begin": sent, "end": end, "tokens": 0, "waits": []})
        load["begin"] = min(load["begin"], sent)
        load["end"] = max(load["end"], end)
        if status == 200:
            load["tokens"] += tokens
            load["waits"].append(end - sent)
    curve, knee, power = [], None, -1
    for users in sorted(found):
        load = found[users]
        speed = 1000 * load["tokens"] / (load["end"] - load["begin"])
        wait = sum(load["waits"]) / len(load["waits"])
        curve.append((users, speed, wait))
        if speed / wait > power:
            knee, power = users, speed / wait
    return {"knee": knee, "curve": curve}
