# expect: returns the wrong type
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = 24 * hourly / (price_out + prompt_ratio * price_in) * 1e6
    return tokens if tokens <= speed * 86_400 else float("inf")
