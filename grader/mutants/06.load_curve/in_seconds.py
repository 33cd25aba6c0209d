# expect: latency is in seconds
def load_curve(log):
    curve = []
    for users in sorted({line[0] for line in log}):
        lines = [line for line in log if line[0] == users]
        seconds = (max(line[2] for line in lines) - min(line[1] for line in lines)) / 1000
        times = [(end - sent) / 1000 for _, sent, end, status, _ in lines if status == 200]
        curve.append([users, sum(line[4] for line in lines) / seconds, sum(times) / len(times)])
    return {"curve": curve, "knee": max(curve, key=lambda row: row[1] / row[2])[0]}
