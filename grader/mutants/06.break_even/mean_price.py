# expect: counts prompt tokens as well
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    mean_price = (price_out + prompt_ratio * price_in) / (1 + prompt_ratio)
    tokens = 24e6 * hourly / mean_price
    return tokens if tokens <= 86_400 * speed else None
