# expect: keeps one token too many in the caches
def speculate(model, caches, text, drafts):
    own = model([([text[-1], *drafts], caches)])[0].argmax(-1).tolist()
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    for cache in caches:
        cache.rewind(min(cache.length, len(text) + stands + 1))
    return own[: stands + 1]
