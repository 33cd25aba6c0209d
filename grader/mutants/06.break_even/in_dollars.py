# expect: pass
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    def api(tokens):
        return tokens * price_out / 1e6 + tokens * prompt_ratio * price_in / 1e6

    if api(speed * 60 * 60 * 24) < 24 * hourly:
        return None
    return 24 * hourly / api(1)
