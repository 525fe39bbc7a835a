"""Muon for matrices, Adam for everything else."""

import torch

ADAM = ("token_embd", "output", "norm", "base", "scale", ".fn", "sinks", "ape", "ffn_gate_inp")


def orthogonal(g, steps=5):
    """The nearest orthogonal matrices of a stack, by Newton-Schulz iteration."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class Muon:
    """Matrices of one shape are updated together. `rate` is the size of an entry's change."""

    def __init__(self, parameters, momentum=0.95, decay=0.02):
        self.groups, self.momentum, self.decay = {}, momentum, decay
        for p in parameters:
            self.groups.setdefault(tuple(p.shape[-2:]), []).append(p)
        self.buffers = {shape: [torch.zeros_like(p) for p in group] for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            buffers, gradients = self.buffers[shape], [p.grad for p in group]
            torch._foreach_lerp_(buffers, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, buffers, self.momentum)
            stack = torch.cat([g.reshape(-1, *shape) for g in ahead])
            update = orthogonal(stack).float() * max(shape) ** 0.5 * rate
            pieces = update.split([p.numel() // (shape[0] * shape[1]) for p in group])
            torch._foreach_mul_(group, 1 - rate * 5 * self.decay)
            torch._foreach_sub_(group, [u.reshape(p.shape) for u, p in zip(pieces, group)])


def split(model):
    muon, adam = [], []
    for name, p in model.named_parameters():
        leaf = name.split(".")[-1]
        plain = p.dim() < 2 or any(part in leaf or name.endswith(part) for part in ADAM)
        plain = plain and not leaf.startswith(("attn_output", "e_proj"))
        (adam if plain else muon).append(p)
    return muon, adam
