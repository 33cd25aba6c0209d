# expect: counts each step after its token was appended
def count_work(prompt, new, use_cache):
    if use_cache:
        return prompt + new - 1
    return new * prompt + new * (new + 1) // 2
