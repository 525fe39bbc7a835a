"""How often the MTP block's first draft is the token that the model itself says next.

`check_mtp.py MODEL.gguf DS4`: the program `ds4` answers test questions greedily, then one pass of the
block over each answer says what it would have drafted. Conversations without thinking, whose text the
program prints whole; sums are drafted in thought, so they are asked for with the opening left to it.
"""

import json
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

import evaluate
import render
from load import load
from model import Context
from tokens import Vocabulary


def said(ds4, model, prompt):
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(prompt)
        f.flush()
        command = [ds4, "run", "-m", model, "--temp", "0", "--raw", "--nothink", "-n", "220", "--prompt-file", f.name]
        return subprocess.run(command, capture_output=True, text=True).stdout.rstrip("\n")


@torch.no_grad()
def main(path, ds4, per_group=12):
    model, _ = load(path)
    vocabulary = Vocabulary()
    for group in ("self", "arithmetic", "tools_single", "json"):
        right = total = 0
        items = [json.loads(line) for line in open(evaluate.FOLDER / f"{group}.jsonl")]
        for item in [i for i in items if group == "arithmetic" or not i["thinking"]][:per_group]:
            parts = render.render(item["messages"], item["thinking"], item.get("tools", ()), item.get("schema"))
            text = said(ds4, path, "".join(t for (_, t), _ in parts))
            if item["thinking"]:
                # The program prints a line break where the reasoning ends.
                text = text.replace("\n", render.END_THINK, 1)
            ids = vocabulary.parts(parts)[0]
            start = len(ids)
            ids = ids + vocabulary.parts([((m, t), True) for m, t in render.structural(text)])[0] + [1]
            padded = torch.tensor([ids + [0] * (-len(ids) % 128)])
            ctx = Context(model.c, padded, fp4_experts=False)
            y, _, streams, _, _ = model(ctx)
            own = model.logits(y, torch.float32)[0].argmax(-1).tolist()
            following = torch.roll(F.embedding(padded, model.token_embd), -1, 1)
            drafts = model.logits(model.mtp[0](streams, following, ctx)[0], torch.float32)[0].argmax(-1).tolist()
            # The draft at p is for p + 2. Only tokens that this pass says too are the model's own.
            spoken = [i for i in range(start + 1, len(ids)) if own[i - 1] == ids[i]]
            right += sum(drafts[i - 2] == ids[i] for i in spoken)
            total += len(spoken)
            assert len(spoken) > 0.95 * (len(ids) - start - 1), "the text was not read back as it was said"
        print(f"{group}: first draft right {right} of {total}, {right / total:.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
