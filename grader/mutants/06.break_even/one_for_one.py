# expect: takes one prompt token for each new one
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_in + price_out) * 1e6
    return tokens if tokens <= speed * 86_400 else None
