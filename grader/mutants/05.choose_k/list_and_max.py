# expect: pass
def choose_k(rounds, draft_cost, verify_cost, limit):
    stood = judged = 0
    for drafted, accepted in rounds:
        stood += accepted
        judged += drafted if accepted == drafted else accepted + 1
    a = stood / judged
    tokens, speeds = 1.0, [1.0]
    for k in range(1, limit + 1):
        tokens += a**k
        speeds.append(tokens / (1 + k * draft_cost + k * verify_cost))
    return speeds.index(max(speeds))
