# expect: maximises tokens, not speed
def choose_k(rounds, draft_cost, verify_cost, limit):
    a = sum(stood for _, stood in rounds) / sum(min(stood + 1, drafted) for drafted, stood in rounds)
    return max(range(limit + 1), key=lambda k: sum(a**i for i in range(k + 1)))
