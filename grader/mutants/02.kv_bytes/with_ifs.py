# expect: pass
def kv_bytes(config, tokens, bits=16):
    if "num_key_value_heads" in config:
        shared = config["num_key_value_heads"]
    else:
        shared = config["num_attention_heads"]
    if "head_dim" in config:
        width = config["head_dim"]
    else:
        width = config["hidden_size"] // config["num_attention_heads"]
    numbers = 0
    for _layer in range(config["num_hidden_layers"]):
        numbers += shared * width  # keys
        numbers += shared * width  # values
    return int(numbers * tokens * bits / 8)
