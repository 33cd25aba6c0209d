# expect: holds a day's tokens against an hour's capacity
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_out + prompt_ratio * price_in) * 1e6
    return tokens if tokens <= speed * 3600 else None
