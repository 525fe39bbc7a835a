"""Compares this implementation with the `transformers` package, weight for weight: `check_transformers.py MODEL.gguf`.

Plain arithmetic in f32: the package has no FP8 and FP4 roundings. The MTP block is not in it either.
"""

import sys

import numpy as np
import torch
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

from check_file import prompts
from check_oracle import whole_sequence
from load import load
from tokens import Vocabulary

GLOBAL = {"token_embd": "model.embed_tokens.weight", "output": "lm_head.weight", "output_norm": "model.norm.weight"}
# What a tensor of a layer is called there; those in LISTS are no modules of their own and have no `.weight`.
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "hc_attn": "attn_hc", "hc_ffn": "ffn_hc",
    "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_norm", "attn_q_b": "self_attn.q_b_proj",
    "attn_kv": "self_attn.kv_proj", "attn_kv_a_norm": "self_attn.kv_norm", "attn_sinks": "self_attn.sinks",
    "attn_output_a": "self_attn.o_a_proj", "attn_output_b": "self_attn.o_b_proj",
    "attn_compressor_kv": "self_attn.compressor.kv_proj", "attn_compressor_gate": "self_attn.compressor.gate_proj",
    "attn_compressor_ape": "self_attn.compressor.position_bias", "attn_compressor_norm": "self_attn.compressor.kv_norm",
    "indexer.attn_q_b": "self_attn.compressor.indexer.q_b_proj", "indexer.proj": "self_attn.compressor.indexer.scorer.weights_proj",
    "indexer_compressor_kv": "self_attn.compressor.indexer.kv_proj", "indexer_compressor_gate": "self_attn.compressor.indexer.gate_proj",
    "indexer_compressor_ape": "self_attn.compressor.indexer.position_bias", "indexer_compressor_norm": "self_attn.compressor.indexer.kv_norm",
    "ffn_gate_inp": "mlp.gate", "ffn_gate_tid2eid": "mlp.gate.tid2eid", "exp_probs_b": "mlp.gate.e_score_correction_bias",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj", "ffn_up_shexp": "mlp.shared_experts.up_proj", "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}  # fmt: skip
LISTS = ("sinks", "position_bias", "tid2eid", "e_score_correction_bias", "mlp.experts.down_proj")


def state(model):
    out, ours = {}, model.state_dict()
    for name, value in ours.items():
        if name in GLOBAL:
            out[GLOBAL[name]] = value
        elif name.startswith("output_hc."):
            out["model.hc_head.hc_" + name.split(".")[1]] = value
        elif name.startswith("blk."):
            _, layer, leaf = name.split(".", 2)
            there = f"model.layers.{layer}."
            if leaf.startswith("hc_"):
                hyper, part = leaf.split(".")
                out[there + LAYER[hyper] + "." + part] = value
            elif leaf == "ffn_gate_exps":
                out[there + "mlp.experts.gate_up_proj"] = torch.cat((value, ours[name.replace("gate", "up")]), 1)
            elif leaf in LAYER:
                out[there + LAYER[leaf] + ("" if LAYER[leaf].endswith(LISTS) else ".weight")] = value
    return out


def config(c):
    yarn = {"rope_type": "yarn", "factor": c.yarn_factor, "original_max_position_embeddings": c.yarn_context,
            "beta_fast": c.beta_fast, "beta_slow": c.beta_slow}  # fmt: skip
    return DeepseekV4Config(
        vocab_size=c.vocab, hidden_size=c.hidden, moe_intermediate_size=c.expert_hidden, num_hidden_layers=len(c.ratios),
        num_attention_heads=c.heads, head_dim=c.head_dim, qk_rope_head_dim=c.rope, q_lora_rank=c.q_rank, o_groups=c.o_groups,
        o_lora_rank=c.o_rank, num_experts_per_tok=c.experts_used, n_routed_experts=c.experts, routed_scaling_factor=c.routed_scale,
        compress_ratios=list(c.ratios), num_hash_layers=c.hash_layers, hc_mult=c.streams, hc_sinkhorn_iters=c.sinkhorn_iterations,
        hc_eps=c.hc_eps, swiglu_limit=c.swiglu_limit, sliding_window=c.window, index_n_heads=c.index_heads, index_head_dim=c.index_dim,
        index_topk=c.index_top_k, rms_norm_eps=c.rms_eps, rope_theta=c.theta, compress_rope_theta=c.compressed_theta,
        rope_parameters=yarn, max_position_embeddings=int(c.yarn_factor * c.yarn_context), attn_implementation="eager",
    )  # fmt: skip


@torch.no_grad()
def main(path):
    ours, _ = load(path)
    theirs = DeepseekV4ForCausalLM(config(ours.c)).float().eval()
    theirs.load_state_dict(state(ours))
    for name, tokens in prompts(Vocabulary()):
        want = theirs(torch.tensor([tokens]), use_cache=False).logits[0].double().numpy()
        got = whole_sequence(ours, tokens, False).astype(np.float64)
        error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
        same = (got.argmax(1) == want.argmax(1)).mean()
        print(f"{name:6} {len(tokens):5} tokens: relative L2 median {np.median(error):.1e}, p85 {np.quantile(error, 0.85):.1e}, "
              f"max {error.max():.1e}; the same token first at {same:.2%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
