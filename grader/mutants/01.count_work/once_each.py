# expect: counts every token once, even without a cache
def count_work(prompt, new, use_cache):
    if use_cache:
        return prompt + new - 1
    return prompt + new - 1
