"""The roundings that DeepSeek V4 was trained with, each passing gradients straight through.

Cached attention rows go through FP8 (E4M3, one power-of-two scale per 64 values), indexer rows and
queries through a Hadamard rotation and FP4 (E2M1, per 32 values), expert weights through FP4 per 32.
"""

import torch


def power_of_two_at_least(x):
    """The smallest power of two not below x, for positive normal f32."""
    bits = x.float().contiguous().view(torch.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0).int()
    return (exponent << 23).view(torch.float32)


def straight_through(x, rounded):
    return x + (rounded - x).detach()


def e2m1(x):
    """Nearest of 0, .5, 1, 1.5, 2, 3, 4, 6 with either sign; ties go to the even code."""
    a = x.abs()
    step = torch.where(a < 2, 0.5, torch.where(a < 4, 1.0, 2.0))
    return torch.sign(x) * torch.round(a / step) * step


def fp8_blocks(x, block=64):
    """What is left of x after storing it as E4M3. A last block may be shorter."""
    parts = []
    for part in x.detach().float().split(block, dim=-1):
        amax = part.abs().amax(-1, keepdim=True).clamp(min=1e-4)
        scale = power_of_two_at_least(amax / 448.0)
        code = (part / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        parts.append(code.float() * scale)
    return straight_through(x, torch.cat(parts, -1).to(x.dtype))


def fp4_blocks(x, block=32):
    """What is left of x after storing it as E2M1 with one power-of-two scale per block."""
    parts = x.detach().float().unflatten(-1, (-1, block))
    amax = parts.abs().amax(-1, keepdim=True).clamp(min=6 * 2.0**-126)
    scale = power_of_two_at_least(amax / 6.0)
    rounded = e2m1((parts / scale).clamp(-6, 6)) * scale
    return straight_through(x, rounded.flatten(-2).to(x.dtype))


def hadamard(x):
    """The orthonormal Walsh-Hadamard rotation of the last dimension, natural order."""
    n = x.shape[-1]
    width = 1
    while width < n:
        pairs = x.unflatten(-1, (n // (2 * width), 2, width))
        a, b = pairs.select(-2, 0), pairs.select(-2, 1)
        x = torch.stack((a + b, a - b), dim=-2).flatten(-3)
        width *= 2
    return x * n**-0.5
