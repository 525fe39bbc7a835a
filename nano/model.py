"""DeepSeek V4 in the form that is trained: whole sequences at once, every step differentiable.

Parameters carry the names of the GGUF (`blk.2.attn_q_a`), so loading and exporting need no table.
Comments in brackets are shapes: B sequences, S positions, N streams, D hidden, H heads, d head width,
R compression ratio, W = S/R compressed rows, E experts, F expert width.

Several documents can share a sequence; `doc` numbers them, and nothing crosses their borders.
Documents start at multiples of 4, so a row of four tokens belongs to one document.
"""

import torch
import torch.nn.functional as F
from torch import nn

from rounding import fp4_blocks, fp8_blocks, hadamard
from sinkhorn import sinkhorn


def rms(x, weight=None, eps=1e-6):
    y = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def rotate(x, cos, sin, back=False):
    """Turns the last pairs of x [..., S, d] or [..., S, H, d]; cos and sin are [S, rope/2]."""
    pairs = cos.shape[-1]
    plain, turned = x[..., : -2 * pairs], x[..., -2 * pairs :].float().unflatten(-1, (pairs, 2))
    if back:
        sin = -sin
    a, b = turned[..., 0], turned[..., 1]
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((plain, turned.to(x.dtype)), -1)


class Context:
    """What all layers of one pass share."""

    def __init__(self, c, tokens, doc=None, official=True, fp4_experts=True, sparse=True, aux=False,
                 dtype=torch.float32, angles=None):  # fmt: skip
        self.tokens = tokens  # [B, S]
        self.doc = torch.zeros_like(tokens) if doc is None else doc
        self.official = official  # round rows as the official model does
        self.fp4_experts = fp4_experts  # round the experts' weights to MXFP4 on the way
        self.sparse = sparse  # attend to the indexer's choice only
        self.aux = aux  # compute the indexer's own loss
        self.dtype = dtype  # of matrix products
        if angles is None:
            angles = {}
            position = torch.arange(tokens.shape[1], dtype=torch.float64, device=tokens.device)
            for ratio in {0, *c.ratios}:
                f = torch.tensor(c.frequencies(ratio), dtype=torch.float64, device=tokens.device)
                angle = position[:, None] * f
                angles[ratio] = (angle.cos().float(), angle.sin().float())
        self.angles = angles

    def linear(self, x, w):
        return F.linear(x.to(self.dtype), w.to(self.dtype))


class Hyper(nn.Module):
    """The three tensors that say what a half-block reads from and writes to the streams."""

    def __init__(self, c, rows, scales):
        super().__init__()
        self.c = c
        self.fn = nn.Parameter(torch.zeros(rows, c.streams * c.hidden))
        self.base = nn.Parameter(torch.zeros(rows))
        self.scale = nn.Parameter(torch.ones(scales))

    def project(self, streams):
        flat = streams.flatten(-2)  # [B, S, N*D]
        size = torch.rsqrt(flat.square().mean(-1, keepdim=True) + self.c.rms_eps)
        return F.linear(flat, self.fn) * size

    def mix(self, streams):
        n, c = self.c.streams, self.c
        m = self.project(streams)  # [B, S, 2N + N*N]
        s, b = self.scale, self.base
        pre = torch.sigmoid(m[..., :n] * s[0] + b[:n]) + c.hc_eps
        post = 2 * torch.sigmoid(m[..., n : 2 * n] * s[1] + b[n : 2 * n])
        logits = (m[..., 2 * n :] * s[2] + b[2 * n :]).unflatten(-1, (n, n))
        return pre, post, sinkhorn(logits, c.sinkhorn_iterations, c.hc_eps)

    def head(self, streams):
        weights = torch.sigmoid(self.project(streams) * self.scale + self.base) + self.c.hc_eps
        return (weights[..., None] * streams).sum(-2)


def read_streams(pre, streams):
    return (pre[..., None] * streams).sum(-2)


def write_streams(post, comb, streams, y):
    """new[j] = post[j] * y + sum over i of comb[i][j] * old[i]"""
    kept = sum(comb[..., i, :, None] * streams[..., i, None, :] for i in range(streams.shape[-2]))
    return kept + post[..., None] * y[..., None, :].to(streams.dtype)


class Indexer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attn_q_b = nn.Parameter(torch.empty(c.index_heads * c.index_dim, c.q_rank))
        self.proj = nn.Parameter(torch.empty(c.index_heads, c.hidden))


def compress(ctx, x, kv, gate, ape, norm, ratio, eps):
    """Pools windows of `ratio` tokens into rows [B, W, d], before rotation and rounding."""
    width = kv.shape[0]
    value = ctx.linear(x, kv).float().unflatten(1, (-1, ratio))  # [B, W, R, w]
    score = ctx.linear(x, gate).float().unflatten(1, (-1, ratio)) + ape
    if ratio == 4:
        # Columns [0, d) of a token belong to the row of the next window, [d, 2d) to its own.
        d = width // 2
        old_doc = ctx.doc[:, ::ratio]
        joined = torch.zeros_like(old_doc, dtype=torch.bool)
        joined[:, 1:] = old_doc[:, 1:] == old_doc[:, :-1]
        before_score = F.pad(score[:, :-1, :, :d], (0, 0, 0, 0, 1, 0))
        before_score = before_score.masked_fill(~joined[:, :, None, None], -1e30)
        before_value = F.pad(value[:, :-1, :, :d], (0, 0, 0, 0, 1, 0))
        score = torch.cat((before_score, score[..., d:]), 2)
        value = torch.cat((before_value, value[..., d:]), 2)
    pooled = (torch.softmax(score, 2) * value).sum(2)
    return rms(pooled, norm, eps)


class Block(nn.Module):
    def __init__(self, c, layer, ratio):
        super().__init__()
        self.c, self.layer, self.ratio = c, layer, ratio
        self.hashed = layer < c.hash_layers
        mat = lambda *shape: nn.Parameter(torch.empty(*shape))
        one = lambda n: nn.Parameter(torch.ones(n))
        self.hc_attn = Hyper(c, c.mix_rows, 3)
        self.hc_ffn = Hyper(c, c.mix_rows, 3)
        self.attn_norm, self.ffn_norm = one(c.hidden), one(c.hidden)
        self.attn_q_a, self.attn_q_a_norm = mat(c.q_rank, c.hidden), one(c.q_rank)
        self.attn_q_b = mat(c.heads * c.head_dim, c.q_rank)
        self.attn_kv, self.attn_kv_a_norm = mat(c.head_dim, c.hidden), one(c.head_dim)
        self.attn_sinks = nn.Parameter(torch.zeros(c.heads))
        self.attn_output_a = mat(c.o_groups * c.o_rank, c.heads * c.head_dim // c.o_groups)
        self.attn_output_b = mat(c.hidden, c.o_groups * c.o_rank)
        if ratio:
            width = c.head_dim * (2 if ratio == 4 else 1)
            self.attn_compressor_kv, self.attn_compressor_gate = mat(width, c.hidden), mat(width, c.hidden)
            self.attn_compressor_ape = nn.Parameter(torch.zeros(ratio, width))
            self.attn_compressor_norm = one(c.head_dim)
        if ratio == 4:
            width = 2 * c.index_dim
            self.indexer = Indexer(c)
            self.indexer_compressor_kv, self.indexer_compressor_gate = mat(width, c.hidden), mat(width, c.hidden)
            self.indexer_compressor_ape = nn.Parameter(torch.zeros(4, width))
            self.indexer_compressor_norm = one(c.index_dim)
        self.ffn_gate_inp = mat(c.experts, c.hidden)
        if self.hashed:
            self.register_buffer("ffn_gate_tid2eid", torch.zeros(c.vocab, c.experts_used, dtype=torch.long))
        else:
            self.register_buffer("exp_probs_b", torch.zeros(c.experts))
        self.ffn_gate_exps = mat(c.experts, c.expert_hidden, c.hidden)
        self.ffn_up_exps = mat(c.experts, c.expert_hidden, c.hidden)
        self.ffn_down_exps = mat(c.experts, c.hidden, c.expert_hidden)
        self.ffn_gate_shexp, self.ffn_up_shexp = mat(c.expert_hidden, c.hidden), mat(c.expert_hidden, c.hidden)
        self.ffn_down_shexp = mat(c.hidden, c.expert_hidden)

    def forward(self, streams, ctx):
        """[B, S, N, D] to the same, and the layer's statistics: (indexer loss, expert load)."""
        eps = self.c.rms_eps
        pre, post, comb = self.hc_attn.mix(streams)
        x = rms(read_streams(pre, streams), self.attn_norm, eps)
        y, index_loss = self.attention(x, ctx)
        streams = write_streams(post, comb, streams, y)
        pre, post, comb = self.hc_ffn.mix(streams)
        x = rms(read_streams(pre, streams), self.ffn_norm, eps)
        y, load = self.moe(x, ctx)
        return write_streams(post, comb, streams, y), index_loss, load

    # ------------------------------------------------------------------ attention

    def attention(self, x, ctx):
        c, (batch, length) = self.c, x.shape[:2]
        cos, sin = ctx.angles[self.ratio]
        head_cos, head_sin = cos[:, None], sin[:, None]
        qr = rms(ctx.linear(x, self.attn_q_a), self.attn_q_a_norm, c.rms_eps)  # [B, S, Rq]
        q = ctx.linear(qr, self.attn_q_b).unflatten(-1, (c.heads, c.head_dim))
        q = rotate(rms(q, None, c.rms_eps), head_cos, head_sin).to(ctx.dtype)  # [B, S, H, d]
        k = rms(ctx.linear(x, self.attn_kv), self.attn_kv_a_norm, c.rms_eps)
        k = self.round_row(rotate(k, cos, sin), ctx).to(ctx.dtype)  # [B, S, d]

        # Raw rows: a block of `window` queries sees its own block of rows and the one before.
        w = c.window
        blocks = length // w
        own = k.unflatten(1, (blocks, w))
        before = F.pad(own[:, :-1], (0, 0, 0, 0, 1, 0))
        near = torch.cat((before, own), 2)  # [B, blocks, 2w, d]
        folded = q.reshape(batch, blocks, w * c.heads, c.head_dim)
        scores = (folded @ near.transpose(-1, -2)).unflatten(2, (w, c.heads))
        doc = ctx.doc.unflatten(1, (blocks, w))
        near_doc = torch.cat((F.pad(doc[:, :-1], (0, 0, 1, 0), value=-1), doc), 2)
        at, key = torch.arange(w, device=x.device)[:, None], torch.arange(2 * w, device=x.device)
        seen = (key > at) & (key <= at + w) & (doc[..., None] == near_doc[..., None, :])
        scores = scores.float() * c.head_dim**-0.5
        scores = scores.masked_fill(~seen[:, :, :, None], -torch.inf).flatten(1, 2)  # [B, S, H, 2w]
        sinks = self.attn_sinks.float().expand(batch, length, c.heads)[..., None]

        index_loss = x.new_zeros(())
        if self.ratio:
            rows, far, index_loss = self.compressed(x, qr, q, cos, sin, ctx)
            scores = torch.cat((sinks.to(scores.dtype), scores, far), -1)
        else:
            scores = torch.cat((sinks.to(scores.dtype), scores), -1)
        p = torch.softmax(scores, -1).to(ctx.dtype)
        o = p[..., 1 : 1 + 2 * w].reshape(batch, blocks, w * c.heads, 2 * w) @ near
        o = o.view(batch, length, c.heads, c.head_dim)
        if self.ratio:
            o = o + (p[..., 1 + 2 * w :].flatten(1, 2) @ rows).view_as(o)
        o = rotate(o, head_cos, head_sin, back=True)

        grouped = o.reshape(batch, length, c.o_groups, -1)
        low = self.attn_output_a.unflatten(0, (c.o_groups, c.o_rank)).to(ctx.dtype)
        low = torch.einsum("bsgi,gri->bsgr", grouped.to(ctx.dtype), low).flatten(-2)
        return ctx.linear(low, self.attn_output_b), index_loss

    def round_row(self, row, ctx):
        if not ctx.official:
            return row
        plain = row.shape[-1] - self.c.rope
        return torch.cat((fp8_blocks(row[..., :plain]), row[..., plain:]), -1)

    def compressed(self, x, qr, q, cos, sin, ctx):
        """The compressed rows [B, W, d], their scores [B, S, H, W], and the indexer's loss."""
        c, ratio = self.c, self.ratio
        first = slice(None, None, ratio)  # a row turns with the first token of its window
        rows = compress(
            ctx, x, self.attn_compressor_kv, self.attn_compressor_gate,
            self.attn_compressor_ape, self.attn_compressor_norm, ratio, c.rms_eps,
        )  # fmt: skip
        rows = self.round_row(rotate(rows, cos[first], sin[first]), ctx).to(ctx.dtype)
        scores = (q.flatten(1, 2) @ rows.transpose(-1, -2)).unflatten(1, (-1, c.heads))
        scores = scores.float() * c.head_dim**-0.5  # [B, S, H, W]

        t = torch.arange(x.shape[1], device=x.device)[:, None]
        window = torch.arange(rows.shape[1], device=x.device)
        visible = (window < (t + 1) // ratio) & (ctx.doc[:, :, None] == ctx.doc[:, None, first])
        index_loss = x.new_zeros(())
        if ratio != 4:
            return rows, scores.masked_fill(~visible[:, :, None], -torch.inf), index_loss
        if not (ctx.sparse or ctx.aux):
            return rows, scores.masked_fill(~visible[:, :, None], -torch.inf), index_loss

        index = self.index_scores(x, qr, cos, sin, ctx).masked_fill(~visible, -torch.inf)
        if ctx.aux:
            index_loss = self.index_loss(scores, index, visible)
        if ctx.sparse and rows.shape[1] > c.index_top_k:
            least = index.detach().topk(c.index_top_k, -1).values[..., -1:]
            visible = visible & (index.detach() >= least)
        return rows, scores.masked_fill(~visible[:, :, None], -torch.inf), index_loss

    # The indexer learns from what attention wanted, and attention learns nothing from the indexer.
    def index_scores(self, x, qr, cos, sin, ctx):
        c = self.c
        x, qr = x.detach(), qr.detach()
        rows = compress(
            ctx, x, self.indexer_compressor_kv, self.indexer_compressor_gate,
            self.indexer_compressor_ape, self.indexer_compressor_norm, 4, c.rms_eps,
        )  # fmt: skip
        rows = rotate(rows, cos[::4], sin[::4])  # [B, W, di]
        query = ctx.linear(qr, self.indexer.attn_q_b).unflatten(-1, (c.index_heads, c.index_dim))
        query = rotate(query.float(), cos[:, None], sin[:, None])
        if ctx.official:
            rows, query = fp4_blocks(hadamard(rows)), fp4_blocks(hadamard(query))
        rows, query = rows.to(ctx.dtype), query.to(ctx.dtype)
        weight = ctx.linear(x, self.indexer.proj).float() * (c.index_heads * c.index_dim) ** -0.5
        dots = (query.flatten(1, 2) @ rows.transpose(-1, -2)).unflatten(1, (-1, c.index_heads))
        return (dots.relu() * weight[..., None].to(dots.dtype)).sum(2, dtype=torch.float32)  # [B, S, W]

    def index_loss(self, scores, index, visible):
        """KL from what the heads attend to over all visible rows to what the indexer would choose."""
        with torch.no_grad():
            wanted = scores.masked_fill(~visible[:, :, None], -1e30).softmax(-1).mean(2)
        chosen = index.masked_fill(~visible, -1e30).log_softmax(-1)
        kl = torch.where(visible, wanted * (wanted.clamp(min=1e-9).log() - chosen), 0.0).sum(-1)
        some = visible.any(-1)
        return (kl * some).sum() / some.sum().clamp(min=1)

    # ------------------------------------------------------------------ experts

    def moe(self, x, ctx):
        c = self.c
        scores = F.softplus(F.linear(x.float(), self.ffn_gate_inp)).sqrt()  # [B, S, E]
        if self.hashed:
            chosen = self.ffn_gate_tid2eid[ctx.tokens]
        else:
            chosen = (scores.detach() + self.exp_probs_b).topk(c.experts_used, -1).indices
        picked = torch.zeros_like(scores).scatter(-1, chosen, 1.0)
        weight = scores * picked
        weight = weight / weight.sum(-1, keepdim=True).clamp(min=2.0**-14) * c.routed_scale

        # All experts as one wide layer: those not chosen have weight zero.
        gate, up, down = self.ffn_gate_exps, self.ffn_up_exps, self.ffn_down_exps
        if ctx.fp4_experts:
            gate, up, down = fp4_blocks(gate), fp4_blocks(up), fp4_blocks(down)
        gate = torch.cat((gate.flatten(0, 1), self.ffn_gate_shexp))
        up = torch.cat((up.flatten(0, 1), self.ffn_up_shexp))
        down = torch.cat((down.transpose(0, 1).flatten(1), self.ffn_down_shexp), 1)
        weight = torch.cat((weight, torch.ones_like(weight[..., :1])), -1).to(ctx.dtype)
        g = ctx.linear(x, gate).clamp(max=c.swiglu_limit)
        u = ctx.linear(x, up).clamp(-c.swiglu_limit, c.swiglu_limit)
        m = (F.silu(g) * u).unflatten(-1, (c.experts + 1, c.expert_hidden)) * weight[..., None]
        return ctx.linear(m.flatten(-2), down), picked.mean((0, 1))


class Predictor(Block):
    """The MTP block: from the streams at p and the token at p+1 to the token at p+2."""

    def __init__(self, c):
        super().__init__(c, len(c.ratios), 0)
        self.e_proj = nn.Parameter(torch.empty(c.hidden, c.hidden))
        self.h_proj = nn.Parameter(torch.empty(c.hidden, c.hidden))
        self.enorm, self.hnorm = nn.Parameter(torch.ones(c.hidden)), nn.Parameter(torch.ones(c.hidden))
        self.norm = nn.Parameter(torch.ones(c.hidden))
        self.hc_head = Hyper(c, c.streams, 1)

    def forward(self, streams, embedded, ctx):
        c = self.c
        e = ctx.linear(rms(embedded, self.enorm, c.rms_eps), self.e_proj)
        h = ctx.linear(rms(streams, self.hnorm, c.rms_eps), self.h_proj)
        streams, _, load = super().forward(h.float() + e.float()[:, :, None], ctx)
        return rms(self.hc_head.head(streams), self.norm, c.rms_eps), streams, load


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Parameter(torch.empty(c.vocab, c.hidden))
        self.output = nn.Parameter(torch.empty(c.vocab, c.hidden))
        self.output_norm = nn.Parameter(torch.ones(c.hidden))
        self.output_hc = Hyper(c, c.streams, 1)
        self.blk = nn.ModuleList(Block(c, i, r) for i, r in enumerate(c.ratios))
        self.mtp = nn.ModuleList([Predictor(c)] if c.mtp else [])

    def forward(self, ctx):
        """Hidden states before the output matrix [B, S, D], and everything training asks for."""
        c = self.c
        embedded = F.embedding(ctx.tokens, self.token_embd)
        streams = embedded[:, :, None].expand(-1, -1, c.streams, -1).contiguous()
        index_losses, loads = [], []
        for block in self.blk:
            streams, index_loss, load = block(streams, ctx)
            index_losses.append(index_loss)
            loads.append(load)
        y = rms(self.output_hc.head(streams), self.output_norm, c.rms_eps)
        ahead = None
        if self.mtp and ctx.aux:
            following = torch.cat((embedded[:, 1:], embedded[:, :1]), 1)
            ahead, _, load = self.mtp[0](streams, following, ctx)
            loads.append(load)
        return y, ahead, streams, index_losses, loads

    def logits(self, y, dtype):
        return F.linear(y.to(dtype), self.output.to(dtype)).float()
