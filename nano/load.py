"""A trained or foreign model from its GGUF."""

import re

import torch

import gguf
from config import Config
from model import Model


def gguf_name(name):
    """`blk.0.hc_attn.fn` is `blk.0.hc_attn_fn.weight` in a file."""
    name = re.sub(r"(hc_attn|hc_ffn|hc_head|output_hc)\.", r"\1_", name)
    return name + (".bias" if name.endswith("exp_probs_b") else ".weight")


def config_of(meta, has_mtp):
    k = lambda name: meta["deepseek4." + name]
    return Config(
        hidden=k("embedding_length"), vocab=k("vocab_size"), heads=k("attention.head_count"),
        head_dim=k("attention.key_length"), rope=k("rope.dimension_count"),
        q_rank=k("attention.q_lora_rank"), o_groups=k("attention.output_group_count"),
        o_rank=k("attention.output_lora_rank"), window=k("attention.sliding_window"),
        ratios=tuple(k("attention.compress_ratios")[: k("block_count")]),
        hash_layers=k("hash_layer_count"), experts=k("expert_count"),
        experts_used=k("expert_used_count"), expert_hidden=k("expert_feed_forward_length"),
        routed_scale=k("expert_weights_scale"), swiglu_limit=k("swiglu_clamp_exp")[0],
        index_heads=k("attention.indexer.head_count"), index_dim=k("attention.indexer.key_length"),
        index_top_k=k("attention.indexer.top_k"), streams=k("hyper_connection.count"),
        sinkhorn_iterations=k("hyper_connection.sinkhorn_iterations"),
        hc_eps=k("hyper_connection.epsilon"), rms_eps=k("attention.layer_norm_rms_epsilon"),
        theta=k("rope.freq_base"), compressed_theta=k("attention.compress_rope_freq_base"),
        yarn_factor=k("rope.scaling.factor"), yarn_context=k("rope.scaling.original_context_length"),
        beta_fast=meta.get("deepseek4.rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=meta.get("deepseek4.rope.scaling.yarn_beta_slow", 1.0), mtp=has_mtp,
    )  # fmt: skip


def load(path):
    file = gguf.Reader(path)
    model = Model(config_of(file.meta, "mtp.0.e_proj.weight" in file.tensors))
    state = model.state_dict()
    for name, value in state.items():
        stored = gguf_name(name)
        if stored in file.tensors:
            value.copy_(torch.from_numpy(file.tensor(stored).copy()).reshape(value.shape))
        else:
            assert name.endswith("exp_probs_b"), f"{stored} is missing"
    return model, file
