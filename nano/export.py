"""From trained weights to the shipped GGUF: `export.py WEIGHTS OUT.gguf`."""

import sys

import numpy as np
import torch

import gguf
from config import NANO
from load import gguf_name
from model import Model
from tokens import Vocabulary


def metadata(c, vocabulary):
    markers = vocabulary.markers
    normal = {t["content"]: t["normalized"] for t in vocabulary.file["added_tokens"]}
    tokens = [vocabulary.strings[i] for i in range(c.vocab)]
    # As llama.cpp's converter marks them: control where special or in the markers' brackets.
    bracketed = lambda t: t.startswith(("<｜", "<|")) and t.endswith(("｜>", "|>"))
    kinds = [(3 if not normal[t] or bracketed(t) else 4) if t in markers else 1 for t in tokens]
    merges = [" ".join(m) if isinstance(m, list) else m for m in vocabulary.file["model"]["merges"]]
    layers = len(c.ratios)
    p = "deepseek4."
    return {
        "general.architecture": "deepseek4", "general.name": "DwarfStar Nano", "general.file_type": 38,
        "general.quantization_version": 2, "general.alignment": gguf.ALIGNMENT,
        p + "block_count": layers, p + "context_length": c.max_context, p + "embedding_length": c.hidden,
        p + "vocab_size": c.vocab, p + "feed_forward_length": c.expert_hidden,
        p + "attention.head_count": c.heads, p + "attention.head_count_kv": 1,
        p + "attention.key_length": c.head_dim, p + "attention.value_length": c.head_dim,
        p + "rope.dimension_count": c.rope, p + "attention.q_lora_rank": c.q_rank,
        p + "attention.output_lora_rank": c.o_rank, p + "attention.output_group_count": c.o_groups,
        p + "expert_count": c.experts, p + "expert_used_count": c.experts_used,
        p + "expert_feed_forward_length": c.expert_hidden, p + "expert_shared_count": 1,
        p + "expert_group_count": 0, p + "expert_group_used_count": 0, p + "expert_gating_func": 4,
        p + "expert_weights_scale": c.routed_scale, p + "expert_weights_norm": True,
        p + "hash_layer_count": c.hash_layers, p + "attention.sliding_window": c.window,
        p + "attention.indexer.head_count": c.index_heads, p + "attention.indexer.key_length": c.index_dim,
        p + "attention.indexer.top_k": c.index_top_k, p + "attention.compress_ratios": list(c.ratios),
        p + "hyper_connection.count": c.streams, p + "hyper_connection.sinkhorn_iterations": c.sinkhorn_iterations,
        p + "hyper_connection.epsilon": c.hc_eps, p + "attention.layer_norm_rms_epsilon": c.rms_eps,
        p + "swiglu_clamp_exp": [c.swiglu_limit] * layers, p + "swiglu_clamp_shexp": [c.swiglu_limit] * layers,
        p + "rope.freq_base": c.theta, p + "attention.compress_rope_freq_base": c.compressed_theta,
        p + "rope.scaling.type": "yarn", p + "rope.scaling.factor": c.yarn_factor,
        p + "rope.scaling.original_context_length": c.yarn_context,
        p + "rope.scaling.yarn_beta_fast": c.beta_fast, p + "rope.scaling.yarn_beta_slow": c.beta_slow,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "joyai-llm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.padding_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip


def kind_of(name, shape):
    if name.endswith("tid2eid"):
        return gguf.I32
    if "_exps" in name:
        return gguf.MXFP4
    if len(shape) < 2:
        return gguf.F32
    if any(part in name for part in ("hc_", "ape", "compressor", "ffn_gate_inp", "indexer.proj")):
        return gguf.F16
    return gguf.Q8_0


def export(model, path):
    tensors = {}
    for name, value in model.state_dict().items():
        stored = gguf_name(name)
        array = value.detach().cpu().numpy()
        array = array.astype(np.int32) if stored.endswith("tid2eid.weight") else array.astype(np.float32)
        tensors[stored] = (kind_of(name.replace("hc_attn.", "hc_attn_").replace("hc_ffn.", "hc_ffn_"), array.shape), array)
    gguf.write(path, metadata(model.c, Vocabulary()), tensors)


def main(weights, path):
    model = Model(NANO)
    state = torch.load(weights, map_location="cpu")
    model.load_state_dict(state.get("model", state))
    export(model, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
