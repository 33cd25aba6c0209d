# expect: forgets that the text grows
def count_work(prompt, new, use_cache):
    if use_cache:
        return prompt + new - 1
    return prompt * new
