# expect: divides by the number of passes, not by their cost
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = sum(acceptance**i for i in range(k + 1))
    return tokens, tokens / (k + 1)
