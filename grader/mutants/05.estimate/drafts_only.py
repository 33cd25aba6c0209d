# expect: forgets the model's own token
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = sum(acceptance**i for i in range(1, k + 1))
    return tokens, tokens / (1 + k * (draft_cost + verify_cost))
