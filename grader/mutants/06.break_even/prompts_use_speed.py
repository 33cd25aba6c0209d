# expect: holds prompt tokens against the speed as well
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24e6 * hourly / (price_out + prompt_ratio * price_in)
    return tokens if tokens * (1 + prompt_ratio) <= 86_400 * speed else None
