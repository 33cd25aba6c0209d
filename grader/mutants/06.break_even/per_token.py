# expect: takes the price of a million tokens for that of one
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_out + prompt_ratio * price_in)
    return tokens if tokens <= speed * 86_400 else None
