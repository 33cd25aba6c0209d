# expect: takes the whole hidden size, as if nothing were shared
def kv_bytes(config, tokens, bits=16):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    return 2 * config["num_hidden_layers"] * config["hidden_size"] * tokens * bits // 8
