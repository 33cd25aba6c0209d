# expect: counts the model's own token as an accepted draft
def choose_k(rounds, draft_cost, verify_cost, limit):
    acceptance = sum(stood + 1 for _, stood in rounds) / sum(made + 1 for made, _ in rounds)
    best, fastest = 0, 1.0
    for k in range(1, limit + 1):
        speed = sum(acceptance**i for i in range(k + 1)) / (1 + k * (draft_cost + verify_cost))
        if speed > fastest:
            best, fastest = k, speed
    return best
