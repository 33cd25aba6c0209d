# expect: returns the two numbers the other way round
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = sum(acceptance**i for i in range(k + 1))
    return tokens / (1 + k * (draft_cost + verify_cost)), tokens
