# expect: pays the server for one hour of the day
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    tokens = hourly / (price_out + prompt_ratio * price_in) * 1e6
    return tokens if tokens <= speed * 86_400 else None
