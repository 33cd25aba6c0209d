# expect: squares the length instead of adding up the steps
def count_work(prompt, new, use_cache):
    if use_cache:
        return prompt + new - 1
    return (prompt + new) ** 2
