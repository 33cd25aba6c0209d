# expect: multiplies the wrong price by the ratio
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_in + prompt_ratio * price_out) * 1e6
    return tokens if tokens <= speed * 86_400 else None
