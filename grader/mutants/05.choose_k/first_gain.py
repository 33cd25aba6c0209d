# expect: takes the first number that pays
def choose_k(rounds, draft_cost, verify_cost, limit):
    a = sum(stood for _, stood in rounds) / sum(min(stood + 1, drafted) for drafted, stood in rounds)
    speeds = [
        sum(a**i for i in range(k + 1)) / (1 + k * (draft_cost + verify_cost)) for k in range(limit + 1)
    ]
    return next((k for k, speed in enumerate(speeds) if speed > 1), 0)
