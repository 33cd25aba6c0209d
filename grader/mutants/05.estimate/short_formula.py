# expect: pass
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = k + 1 if acceptance == 1 else (1 - acceptance ** (k + 1)) / (1 - acceptance)
    return [tokens, tokens / (1 + k * draft_cost + k * verify_cost)]
