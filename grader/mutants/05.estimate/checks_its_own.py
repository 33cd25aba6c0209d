# expect: pays for checking the model's own token
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = sum(acceptance**i for i in range(k + 1))
    return tokens, tokens / (1 + k * draft_cost + (k + 1) * verify_cost)
