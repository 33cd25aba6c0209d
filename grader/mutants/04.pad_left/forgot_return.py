# expect: returns nothing
import torch


def pad_left(prompts, pad_id):
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    causal = torch.ones(longest, longest).tril().bool()
    mask = (causal & real[:, None, :]) | torch.eye(longest).bool()
    result = ids, positions, mask
