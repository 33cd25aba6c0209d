# expect: pass
import torch


def estimate(acceptance, k, draft_cost, verify_cost=0.0):
    still_alive = torch.full((k,), acceptance, dtype=torch.float64).cumprod(0)
    tokens = 1 + still_alive.sum().item()
    seconds_with = (1 + k * (draft_cost + verify_cost)) / tokens
    return tokens, 1 / seconds_with
