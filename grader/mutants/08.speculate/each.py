# expect: one pass for each draft
def speculate(model, caches, text, drafts):
    token, found = text[-1], []
    for draft in [*drafts, None]:
        found.append(int(model([([token], caches)])[0][-1].argmax()))
        if found[-1] != draft:
            break
        token = draft
    return found
