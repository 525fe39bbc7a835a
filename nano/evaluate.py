"""Grades the test sets on the GPU: `evaluate.py MODEL.gguf [--limit N] [--json FILE] [GROUP ...]`.

Greedy decoding over whole sequences, without a cache: many items at once, one token per pass. The
program's own `ds4 eval --suite nano` grades the same files the same way, one item at a time.
"""

import argparse
import json
import pathlib
import re
import time

import torch

import render
from data import retrieval
from load import load
from model import Context
from tokens import Vocabulary

FOLDER = pathlib.Path(__file__).parent / "eval"
GROUPS = ("self", "arithmetic", "tools_single", "tools_multi", "retrieval_8k", "json")
ROOM = {"arithmetic": 200, "tools_single": 120, "tools_multi": 120, "json": 110}
CALL = re.compile(r'<｜DSML｜invoke name="(.*?)">\n(.*?)</｜DSML｜invoke>', re.S)
PARAMETER = re.compile(r'<｜DSML｜parameter name="(.*?)" string="(true|false)">(.*?)</｜DSML｜parameter>\n', re.S)


def generate(model, prompts, room, eos=1, budget=100_000):
    """Greedy continuations, a slice of the batch at a time."""
    device = model.output.device
    out = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    while order:
        longest = -(-(len(prompts[order[0]]) + room) // 128) * 128
        part = []
        while order:
            longest_now = -(-(len(prompts[order[0]]) + room) // 128) * 128
            if part and longest_now * (len(part) + 1) > budget:
                break
            longest = longest_now
            part.append(order.pop(0))
        tokens = torch.zeros(len(part), longest, dtype=torch.long, device=device)
        lengths = torch.tensor([len(prompts[i]) for i in part], device=device)
        for row, i in enumerate(part):
            tokens[row, : len(prompts[i])] = torch.tensor(prompts[i])
        rows, done, angles = torch.arange(len(part), device=device), torch.zeros(len(part), dtype=torch.bool, device=device), None
        for _ in range(room):
            ctx = Context(model.c, tokens, fp4_experts=False, dtype=torch.bfloat16, angles=angles)
            angles = ctx.angles
            y = model(ctx)[0][rows, lengths - 1]
            chosen = model.logits(y, torch.float32).argmax(-1)
            tokens[rows, lengths] = torch.where(done, 0, chosen)
            lengths = torch.where(done, lengths, lengths + 1)
            done |= chosen == eos
            if done.all():
                break
        for row, i in enumerate(part):
            out[i] = tokens[row, len(prompts[i]) : lengths[row]].tolist()
    return out


def parse(text, thinking):
    """Reasoning, content, calls; None where the form is broken."""
    reasoning = ""
    if thinking:
        if "</think>" not in text:
            return None
        reasoning, text = text.split("</think>", 1)
    if not text.endswith(render.EOS):
        return None
    content, mark, block = text[: -len(render.EOS)].partition("\n\n<｜DSML｜tool_calls>\n")
    calls = []
    if mark:
        if not block.endswith("\n</｜DSML｜tool_calls>"):
            return None
        for name, body in CALL.findall(block):
            try:
                calls.append((name, {k: v if s == "true" else json.loads(v) for k, s, v in PARAMETER.findall(body)}))
            except ValueError:
                return None
    return reasoning, content, calls


def right(expect, parsed):
    if parsed is None:
        return False
    _, content, calls = parsed
    if "calls" in expect and [(c["name"], c["arguments"]) for c in expect["calls"]] != calls:
        return False
    if "contains" in expect and not all(part.lower() in content.lower() for part in expect["contains"]):
        return False
    if "last_integer" in expect and (re.findall(r"-?\d+", content.replace(",", "")) or [None])[-1] != str(expect["last_integer"]):
        return False
    if "json" in expect:
        try:
            return json.loads(content) == expect["json"]
        except ValueError:
            return False
    return True


def grade(model, vocabulary, group, filler, limit=None):
    items = [json.loads(line) for line in open(FOLDER / f"{group}.jsonl")][:limit]
    for item in items:
        item["history"] = list(item["messages"] if "messages" in item else retrieval.expand(item["haystack"], filler))
        item["failed"] = False
    turn = 0
    while True:
        active = [i for i in items if not i["failed"] and turn < len(i["turns"])]
        if not active:
            break
        prompts = []
        for i in active:
            parts = render.render(i["history"], i["thinking"], i.get("tools", ()), i.get("schema"))
            prompts.append(vocabulary.parts(parts)[0])
        for i, prompt, ids in zip(active, prompts, generate(model, prompts, ROOM.get(group, 90))):
            text = vocabulary.decode(ids)
            parsed = parse(text, i["thinking"])
            i["said"] = i.get("said", "") + text
            if not right(i["turns"][turn]["expect"], parsed):
                i["failed"] = True
                continue
            reasoning, content, calls = parsed
            i["history"].append({"role": "assistant", "content": content, "reasoning": reasoning, "calls": calls})
            i["history"] += [{"role": "tool", "content": r} for r in i["turns"][turn].get("results", ())]
        turn += 1
    return items


@torch.no_grad()
def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("groups", nargs="*", help="; ".join(GROUPS))
    p.add_argument("--limit", type=int, help="only so many items of each group")
    p.add_argument("--json", help="where the scores go")
    a = p.parse_args()
    model, _ = load(a.model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    vocabulary, filler = Vocabulary(), (FOLDER / "filler.txt").read_text().splitlines()
    result = {}
    for group in a.groups or GROUPS:
        began = time.time()
        items = grade(model, vocabulary, group, filler, a.limit)
        score = sum(not i["failed"] for i in items) / len(items)
        result[group] = {"score": round(score, 4), "n": len(items)}
        print(f"{group}: {score:.3f} of {len(items)}, {time.time() - began:.0f} s", flush=True)
        for i in [i for i in items if i["failed"]][:6]:
            asked = i["history"][0]["content"][-120:]
            print("   failed:", json.dumps([asked, i["said"][-260:], i["turns"][0]["expect"]], ensure_ascii=False))
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"groups": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
