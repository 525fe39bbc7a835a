"""The same weights in the style of the original checkpoint: `export_checkpoint.py MODEL.gguf FOLDER`.

FP8 in tiles of 128x128 for the dense matrices, packed FP4 for the routed experts, BF16 and F32 for the
rest, `config.json` and `tokenizer.json` beside it. FP8 is coarser than the Q8_0 of the GGUF, so the
logits are near, not equal.
"""

import json
import pathlib
import re
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import save_file

import gguf
from load import load
from rounding import power_of_two_at_least
from tokens import PATH

NAMES = {
    "attn_q_a": "attn.wq_a", "attn_q_a_norm": "attn.q_norm", "attn_q_b": "attn.wq_b", "attn_kv": "attn.wkv",
    "attn_kv_a_norm": "attn.kv_norm", "attn_output_a": "attn.wo_a", "attn_output_b": "attn.wo_b",
    "attn_sinks": "attn.attn_sink", "attn_compressor_kv": "attn.compressor.wkv",
    "attn_compressor_gate": "attn.compressor.wgate", "attn_compressor_ape": "attn.compressor.ape",
    "attn_compressor_norm": "attn.compressor.norm", "indexer.attn_q_b": "attn.indexer.wq_b",
    "indexer.proj": "attn.indexer.weights_proj", "indexer_compressor_kv": "attn.indexer.compressor.wkv",
    "indexer_compressor_gate": "attn.indexer.compressor.wgate", "indexer_compressor_ape": "attn.indexer.compressor.ape",
    "indexer_compressor_norm": "attn.indexer.compressor.norm", "ffn_gate_inp": "ffn.gate", "exp_probs_b": "ffn.gate.bias",
    "ffn_gate_tid2eid": "ffn.gate.tid2eid", "ffn_gate_shexp": "ffn.shared_experts.w1", "ffn_up_shexp": "ffn.shared_experts.w3",
    "ffn_down_shexp": "ffn.shared_experts.w2",
}  # fmt: skip
GLOBAL = {"token_embd": "embed", "output": "head", "output_norm": "norm"}
EXPERTS = {"ffn_gate_exps": "w1", "ffn_up_exps": "w3", "ffn_down_exps": "w2"}
BARE = ("attn_sink", "ape", "gate.bias", "tid2eid", "hc_attn_fn", "hc_attn_base", "hc_attn_scale", "hc_ffn_fn", "hc_ffn_base",
        "hc_ffn_scale", "hc_head_fn", "hc_head_base", "hc_head_scale")  # fmt: skip
FP8 = ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "w1", "w2", "w3", "e_proj", "h_proj")


def scale_bytes(scale):
    return (scale.contiguous().view(torch.int32) >> 23).to(torch.uint8).view(torch.float8_e8m0fnu)


def fp8(w):
    rows, cols = w.shape
    padded = torch.zeros(-(-rows // 128) * 128, -(-cols // 128) * 128)
    padded[:rows, :cols] = w
    tiles = padded.unflatten(0, (-1, 128)).unflatten(2, (-1, 128))
    scale = power_of_two_at_least(tiles.abs().amax((1, 3)).clamp(min=1e-8) / 448)
    codes = (tiles / scale[:, None, :, None]).to(torch.float8_e4m3fn).flatten(2).flatten(0, 1)
    return codes[:rows, :cols].contiguous(), scale_bytes(scale)


def fp4(w):
    exponent, magnitude, sign = gguf.e8m0_codes(w.numpy().reshape(-1, 32))
    codes = (magnitude | (sign << 3)).astype(np.uint8).reshape(w.shape)
    packed = torch.from_numpy(codes[:, 0::2] | (codes[:, 1::2] << 4)).view(torch.int8)
    scale = torch.from_numpy(exponent.astype(np.uint8).reshape(w.shape[0], -1)).view(torch.float8_e8m0fnu)
    return packed, scale


def place(out, name, value):
    if name.endswith(BARE):
        out[name] = value.long() if name.endswith("tid2eid") else value.float()
    elif name.split(".")[-1] in FP8 and "compressor" not in name:
        out[name + ".weight"], out[name + ".scale"] = fp8(value)
    else:
        out[name + ".weight"] = value.bfloat16()


def tensors(model):
    out = {}
    for name, value in model.state_dict().items():
        value = value.clone()
        name = re.sub(r"(hc_attn|hc_ffn|hc_head|output_hc)\.", r"\1_", name).replace("output_hc", "hc_head")
        layer = re.match(r"(blk|mtp)\.(\d+)\.(.*)", name)
        if not layer:
            place(out, GLOBAL.get(name, name), value)
            continue
        block = ("layers" if layer[1] == "blk" else "mtp") + f".{layer[2]}."
        if layer[3] in EXPERTS:
            for e, w in enumerate(value):
                base = f"{block}ffn.experts.{e}.{EXPERTS[layer[3]]}"
                out[base + ".weight"], out[base + ".scale"] = fp4(w)
        else:
            place(out, block + NAMES.get(layer[3], layer[3]), value)
    return out


def config(c):
    return {
        "model_type": "deepseek_v4", "architectures": ["DeepseekV4ForCausalLM"], "num_hidden_layers": len(c.ratios),
        "hidden_size": c.hidden, "vocab_size": c.vocab, "num_attention_heads": c.heads, "num_key_value_heads": 1,
        "head_dim": c.head_dim, "qk_rope_head_dim": c.rope, "q_lora_rank": c.q_rank, "o_lora_rank": c.o_rank,
        "o_groups": c.o_groups, "sliding_window": c.window, "compress_ratios": [*c.ratios, 0],
        "index_n_heads": c.index_heads, "index_head_dim": c.index_dim, "index_topk": c.index_top_k,
        "n_routed_experts": c.experts, "num_experts_per_tok": c.experts_used, "n_shared_experts": 1,
        "moe_intermediate_size": c.expert_hidden, "num_hash_layers": c.hash_layers, "norm_topk_prob": True,
        "scoring_func": "sqrtsoftplus", "routed_scaling_factor": c.routed_scale, "swiglu_limit": c.swiglu_limit,
        "hc_mult": c.streams, "hc_sinkhorn_iters": c.sinkhorn_iterations, "hc_eps": c.hc_eps, "rms_norm_eps": c.rms_eps,
        "rope_theta": c.theta, "compress_rope_theta": c.compressed_theta, "max_position_embeddings": c.max_context,
        "rope_scaling": {"type": "yarn", "factor": c.yarn_factor, "original_max_position_embeddings": c.yarn_context,
                         "beta_fast": c.beta_fast, "beta_slow": c.beta_slow},
        "num_nextn_predict_layers": 1, "expert_dtype": "fp4", "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
    }  # fmt: skip


def main(path, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, _ = load(path)
    save_file(tensors(model), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(model.c), indent=1))
    shutil.copy(PATH, folder / "tokenizer.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
