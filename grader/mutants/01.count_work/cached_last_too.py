# expect: runs the last token too
def count_work(prompt, new, use_cache):
    if use_cache:
        return prompt + new
    return sum(prompt + step for step in range(new))
