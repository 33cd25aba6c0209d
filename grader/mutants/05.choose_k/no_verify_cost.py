# expect: forgets what a draft costs to check
def choose_k(rounds, draft_cost, verify_cost, limit):
    acceptance = sum(stood for _, stood in rounds) / sum(min(stood + 1, made) for made, stood in rounds)
    best, fastest = 0, 1.0
    for k in range(1, limit + 1):
        speed = sum(acceptance**i for i in range(k + 1)) / (1 + k * draft_cost)
        if speed > fastest:
            best, fastest = k, speed
    return best
