# expect: forgets the prompt
def count_work(prompt, new, use_cache):
    if use_cache:
        return new
    return sum(step for step in range(new))
