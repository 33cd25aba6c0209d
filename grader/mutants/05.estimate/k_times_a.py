# expect: lets drafts stand behind a rejected one
def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    tokens = 1 + k * acceptance
    return tokens, tokens / (1 + k * (draft_cost + verify_cost))
