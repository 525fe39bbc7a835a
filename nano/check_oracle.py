"""Compares this implementation with the logits of the oracle's models: `check_oracle.py DIR`."""

import sys

import numpy as np
import torch
from safetensors.numpy import load_file

from load import load
from model import Context


def whole_sequence(model, tokens, official):
    """Logits of every position; the padding behind the last token changes nothing before it."""
    n = len(tokens)
    padded = torch.zeros(1, -(-n // 128) * 128, dtype=torch.long)
    padded[0, :n] = torch.tensor(tokens)
    ctx = Context(model.c, padded, official=official, fp4_experts=False)
    with torch.no_grad():
        y = model(ctx)[0]
        return model.logits(y, torch.float32)[0, :n].numpy()


def main(folder):
    for name in ("flash_a-f16", "flash_a-q8_0", "kquant_a-mxfp4", "sparse_a-f32"):
        model, _ = load(f"{folder}/{name}.gguf")
        vectors = load_file(f"{folder}/{name}.vec.safetensors")
        for prompt in ("p5", "p130", "p300", "p700", "p1500"):
            for mode in ("plain", "qat"):
                if f"{prompt}/{mode}/logits" not in vectors:
                    continue
                tokens, at = vectors[f"{prompt}/tokens"].tolist(), vectors[f"{prompt}/pos"]
                want = vectors[f"{prompt}/{mode}/logits"].astype(np.float64)
                got = whole_sequence(model, tokens, mode == "qat")[at].astype(np.float64)
                error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
                print(f"{name:16} {prompt:6} {mode:6} median {np.median(error):.1e} max {error.max():.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
