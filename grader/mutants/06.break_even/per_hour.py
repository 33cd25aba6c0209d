# expect: pass
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    per_hour = hourly / (price_out + prompt_ratio * price_in)
    millions = 24 * per_hour
    if millions * 1_000_000 / 86_400 <= speed:
        return millions * 1_000_000
