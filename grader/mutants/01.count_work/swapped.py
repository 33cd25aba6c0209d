# expect: with and without a cache are swapped
def count_work(prompt, new, use_cache):
    if not use_cache:
        return prompt + new - 1
    return sum(prompt + step for step in range(new))
