"""Sinkhorn normalisation of the stream-mixing matrices, with a fused kernel for the GPU.

Forty tiny normalisations per half-block would be forty trips through memory; the kernel keeps the
4x4 matrix of a token in registers. Backward walks the same normalisations in reverse: each is
y = x / (sum(x) + eps), so x is y times the saved sum and nothing but the sums need be kept.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def sinkhorn_plain(logits, iterations, eps):
    """logits [..., N source, N destination] to nearly doubly stochastic matrices."""
    c = torch.softmax(logits, -1) + eps
    c = c / (c.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        c = c / (c.sum(-1, keepdim=True) + eps)
        c = c / (c.sum(-2, keepdim=True) + eps)
    return c


if triton is not None:

    @triton.jit
    def _forward(logits, out, sums, tokens, eps, ITER: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        r = tl.arange(0, 4)
        at = t[:, None, None] * 16 + r[None, :, None] * 4 + r[None, None, :]
        live = (t < tokens)[:, None, None]
        x = tl.load(logits + at, mask=live, other=0.0)
        x = tl.exp(x - tl.max(x, axis=2)[:, :, None])
        x = x / tl.sum(x, axis=2)[:, :, None] + eps
        lane = t[:, None] * 4 + r[None, :]
        live2 = (t < tokens)[:, None]
        s = tl.sum(x, axis=1) + eps
        tl.store(sums + lane, s, mask=live2)
        x = x / s[:, None, :]
        for i in range(ITER - 1):
            s = tl.sum(x, axis=2) + eps
            tl.store(sums + (2 * i + 1) * tokens * 4 + lane, s, mask=live2)
            x = x / s[:, :, None]
            s = tl.sum(x, axis=1) + eps
            tl.store(sums + (2 * i + 2) * tokens * 4 + lane, s, mask=live2)
            x = x / s[:, None, :]
        tl.store(out + at, x, mask=live)

    @triton.jit
    def _backward(out, grad, sums, grad_in, tokens, eps, ITER: tl.constexpr, BLOCK: tl.constexpr):
        t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        r = tl.arange(0, 4)
        at = t[:, None, None] * 16 + r[None, :, None] * 4 + r[None, None, :]
        live = (t < tokens)[:, None, None]
        lane = t[:, None] * 4 + r[None, :]
        live2 = (t < tokens)[:, None]
        y = tl.load(out + at, mask=live, other=0.25)
        g = tl.load(grad + at, mask=live, other=0.0)
        for k in range(ITER - 1):
            i = ITER - 2 - k
            s = tl.load(sums + (2 * i + 2) * tokens * 4 + lane, mask=live2, other=1.0)
            g = (g - tl.sum(g * y, axis=1)[:, None, :]) / s[:, None, :]
            y = y * s[:, None, :]
            s = tl.load(sums + (2 * i + 1) * tokens * 4 + lane, mask=live2, other=1.0)
            g = (g - tl.sum(g * y, axis=2)[:, :, None]) / s[:, :, None]
            y = y * s[:, :, None]
        s = tl.load(sums + lane, mask=live2, other=1.0)
        g = (g - tl.sum(g * y, axis=1)[:, None, :]) / s[:, None, :]
        p = y * s[:, None, :] - eps
        g = p * (g - tl.sum(g * p, axis=2)[:, :, None])
        tl.store(grad_in + at, g, mask=live)


BLOCK = 64


@torch.library.custom_op("nano::sinkhorn", mutates_args=())
def _fused(logits: torch.Tensor, iterations: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.contiguous()
    tokens = logits.numel() // 16
    out = torch.empty_like(logits)
    sums = logits.new_empty(2 * iterations - 1, tokens, 4)
    _forward[(triton.cdiv(tokens, BLOCK),)](logits, out, sums, tokens, eps, iterations, BLOCK)
    return out, sums


@_fused.register_fake
def _(logits, iterations, eps):
    sums = logits.new_empty(2 * iterations - 1, logits.numel() // 16, 4)
    return torch.empty_like(logits, memory_format=torch.contiguous_format), sums


@torch.library.custom_op("nano::sinkhorn_backward", mutates_args=())
def _fused_backward(
    out: torch.Tensor, grad: torch.Tensor, sums: torch.Tensor, iterations: int, eps: float
) -> torch.Tensor:
    tokens = out.numel() // 16
    grad_in = torch.empty_like(out)
    grid = (triton.cdiv(tokens, BLOCK),)
    _backward[grid](out, grad.contiguous(), sums, grad_in, tokens, eps, iterations, BLOCK)
    return grad_in


@_fused_backward.register_fake
def _(out, grad, sums, iterations, eps):
    return torch.empty_like(out)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*output)
    ctx.iterations, ctx.eps = inputs[1], inputs[2]


def _differentiate(ctx, grad, _):
    out, sums = ctx.saved_tensors
    return _fused_backward(out, grad, sums, ctx.iterations, ctx.eps), None, None


torch.library.register_autograd("nano::sinkhorn", _differentiate, setup_context=_save)


def sinkhorn(logits, iterations, eps):
    if logits.is_cuda and logits.shape[-1] == 4 and logits.dtype == torch.float32:
        return _fused(logits, iterations, eps)[0]
    return sinkhorn_plain(logits, iterations, eps)
