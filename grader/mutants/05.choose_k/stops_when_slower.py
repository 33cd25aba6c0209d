# expect: pass
def choose_k(rounds, draft_cost, verify_cost, limit):
    accepted = sum(pair[1] for pair in rounds)
    rejected = sum(pair[1] < pair[0] for pair in rounds)
    a, extra, k, tokens = accepted / (accepted + rejected), draft_cost + verify_cost, 0, 1.0
    while k < limit and (tokens + a ** (k + 1)) / (1 + (k + 1) * extra) > tokens / (1 + k * extra):
        k += 1
        tokens += a**k
    return k
