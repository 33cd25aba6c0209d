# expect: runs what the caches hold already
def speculate(model, caches, text, drafts):
    for cache in caches:
        cache.rewind(0)
    own = model([([*text, *drafts], caches)])[0].argmax(-1).tolist()[len(text) - 1 :]
    stands = 0
    while stands < len(drafts) and drafts[stands] == own[stands]:
        stands += 1
    for cache in caches:
        cache.rewind(len(text) + stands)
    return own[: stands + 1]
