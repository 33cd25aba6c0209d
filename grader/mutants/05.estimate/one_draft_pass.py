# expect: pays for one draft pass only
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = sum(acceptance**i for i in range(k + 1))
    return tokens, tokens / (1 + draft_cost + k * verify_cost)
