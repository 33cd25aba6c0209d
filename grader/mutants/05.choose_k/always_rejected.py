# expect: counts a rejected draft where all stood
def choose_k(rounds, draft_cost, verify_cost, limit):
    a = sum(stood for _, stood in rounds) / sum(stood + 1 for _, stood in rounds)
    speeds = [
        sum(a**i for i in range(k + 1)) / (1 + k * (draft_cost + verify_cost)) for k in range(limit + 1)
    ]
    return speeds.index(max(speeds))
