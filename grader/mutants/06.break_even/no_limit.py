# expect: asks more of the server than it can do
def break_even(price_in, price_out, prompt_ratio, hourly, speed):
    return 24 * hourly / (price_out + prompt_ratio * price_in) * 1e6
