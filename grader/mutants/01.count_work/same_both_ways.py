# expect: the cache changes nothing
def count_work(prompt, new, use_cache):
    return sum(prompt + step for step in range(new))
