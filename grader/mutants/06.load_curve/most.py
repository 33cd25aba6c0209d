# expect: takes the highest throughput for the knee
def load_curve(log):
    curve = []
    for users in sorted({line[0] for line in log}):
        lines = [line for line in log if line[0] == users]
        answered = [line for line in lines if line[3] == 200]
        seconds = (max(line[2] for line in lines) - min(line[1] for line in lines)) / 1000
        latency = sum(line[2] - line[1] for line in answered) / len(answered)
        curve.append([users, sum(line[4] for line in answered) / seconds, latency])
    best = max(curve, key=lambda row: row[1])
    return {"curve": curve, "knee": best[0]}
