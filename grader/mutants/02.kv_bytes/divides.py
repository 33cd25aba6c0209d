# expect: works out head_dim although the file says it
def kv_bytes(config, tokens, bits=16):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config["hidden_size"] // heads
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * tokens * bits // 8
