"""How often the MTP block's first draft is the token that the model itself says next.

`check_mtp.py MODEL.gguf`: greedy answers to test questions, then one pass with the block over them.
"""

import json
import sys

import torch
import torch.nn.functional as F

import evaluate
import render
from load import load
from model import Context
from tokens import Vocabulary


def context(model, ids):
    padded = torch.tensor([ids + [0] * (-len(ids) % 128)])
    return Context(model.c, padded, fp4_experts=False)


@torch.no_grad()
def main(path, per_group=10):
    model, _ = load(path)
    vocabulary = Vocabulary()
    for group in ("self", "arithmetic", "tools_single", "json"):
        right = total = 0
        for line in list(open(evaluate.FOLDER / f"{group}.jsonl"))[:per_group]:
            item = json.loads(line)
            ids = vocabulary.parts(render.render(item["messages"], item["thinking"], item.get("tools", ()), item.get("schema")))[0]
            start = len(ids)
            while len(ids) < start + 60 and ids[-1] != 1:
                ids.append(model.logits(model(context(model, ids))[0], torch.float32)[0, len(ids) - 1].argmax().item())
            ctx = context(model, ids)
            streams = model(ctx)[2]
            embedded = F.embedding(ctx.tokens, model.token_embd)
            ahead = model.mtp[0](streams, torch.roll(embedded, -1, 1), ctx)[0]
            drafts = model.logits(ahead, torch.float32)[0].argmax(-1).tolist()
            # The draft at p is for p + 2; the token at p + 1 was the model's own.
            said = range(start + 1, len(ids))
            right += sum(drafts[i - 2] == ids[i] for i in said)
            total += len(said)
        print(f"{group}: first draft right {right} of {total}, {right / total:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
