# expect: pass
def count_work(prompt, new, use_cache):
    """Plays the loop: how long is the text, how much of it is kept, what has to be run?"""
    length, kept, processed = prompt, 0, 0
    while new > 0:
        processed += length - kept
        kept = length if use_cache else 0
        length += 1
        new -= 1
    return processed
