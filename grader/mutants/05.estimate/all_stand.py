# expect: takes every draft for accepted
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = k + 1.0
    return tokens, tokens / (1 + k * (draft_cost + verify_cost))
