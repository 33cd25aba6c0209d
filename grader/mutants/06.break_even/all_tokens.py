# expect: counts prompt tokens as well
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_out + prompt_ratio * price_in) * 1e6
    return tokens * (1 + prompt_ratio) if tokens <= speed * 86_400 else None
