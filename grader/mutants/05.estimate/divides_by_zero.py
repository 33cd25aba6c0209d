# expect: divides by zero when every draft is accepted
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = (1 - acceptance ** (k + 1)) / (1 - acceptance)
    return tokens, tokens / (1 + k * (draft_cost + verify_cost))
