# expect: believes that an idle server is free
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    api = price_out + prompt_ratio * price_in
    own = hourly / (speed * 3600) * 1e6
    return 0 if own <= api else None
