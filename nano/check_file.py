"""Makes an oracle set of a GGUF: `check_file.py MODEL.gguf FOLDER`, for `cargo xtask oracle --set FOLDER`.

The set holds this implementation's logits, plain and official, of a chat, a tool conversation and
texts long enough for the indexer to choose; the Rust passes are then held to them.
"""

import json
import pathlib
import random
import shutil
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

import render
from check_oracle import whole_sequence
from data import jsonform, prose, retrieval, selfknow, tools
from load import load
from tokens import Vocabulary


def prompts(vocabulary):
    rng = random.Random(99)
    conversation = lambda d: vocabulary.parts(render.render(d["messages"], True, d.get("tools", ()), d.get("schema")))[0]
    yield "chat", conversation(selfknow.sample(rng))
    yield "json", conversation(jsonform.sample(rng))
    yield "tools", conversation(tools.sample(rng))
    yield "text", vocabulary.text("\n\n".join(prose.paragraph(rng) for _ in range(12)))
    yield "long", conversation(retrieval.sample(rng, 7000))


def main(path, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / "nano.gguf")
    model, _ = load(path)
    vectors, cases = {}, []
    tolerances = {"exact": {"plain": {"median": 1e-4, "p85": 2e-4}, "qat": {"median": 1e-3, "p85": 1e-2}}}
    for name, tokens in prompts(Vocabulary()):
        at = np.unique(np.linspace(0, len(tokens) - 1, 40).astype(np.int32))
        vectors[f"{name}/tokens"], vectors[f"{name}/pos"] = np.array(tokens, np.int32), at
        for mode in ("plain", "qat"):
            vectors[f"{name}/{mode}/logits"] = whole_sequence(model, tokens, mode == "qat")[at]
        cases.append({"prompt": name, "n": len(tokens), "positions": at.tolist(), "tolerances": tolerances})
    save_file(vectors, folder / "nano.vec.safetensors")
    entry = {"id": "nano", "model": "nano.gguf", "vectors": "nano.vec.safetensors", "modes": ["plain", "qat"], "cases": cases}
    (folder / "manifest.json").write_text(json.dumps({"set": "nano", "entries": [entry]}))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
