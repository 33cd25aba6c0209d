# expect: returns the wrong type
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    return sum(acceptance**i for i in range(k + 1)) / (1 + k * (draft_cost + verify_cost))
