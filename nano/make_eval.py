"""Writes the test sets: questions, sums, names and phrasings that no training seed produces.

One item per line: `messages` (and `tools`, `schema`) to begin with, then `turns`: what the model must
say, and the tool results it is given before it goes on. README.md says how each expectation is graded.
"""

import json
import pathlib
import random

from data import arithmetic, jsonform, prose, retrieval, selfknow, tools

OUT = pathlib.Path(__file__).parent / "eval"
SEED = 20_260


def turns_of(script):
    """The assistant's turns of a conversation, each with what the tools answer."""
    turns = []
    for m in script[1:]:
        if m["role"] == "tool":
            turns[-1]["results"].append(m["content"])
        elif m.get("calls"):
            calls = [{"name": name, "arguments": arguments} for name, arguments in m["calls"]]
            turns.append({"expect": {"calls": calls}, "results": []})
        else:
            turns.append({"expect": {}})
    return turns


def scripted(items, final):
    out = []
    for item in items:
        turns = turns_of(item["script"])
        turns[-1]["expect"] = {"contains": item["contains"], "calls": []}
        if not final:
            turns = turns[:1]
        out.append({"messages": item["script"][:1], "tools": item["tools"], "turns": turns})
    return out


def main():
    rng = random.Random(SEED)
    filler = [prose.paragraph(rng) for _ in range(320)]
    groups = {
        "self": [{"messages": i["messages"], "turns": [{"expect": {"contains": i["contains"]}}]} for i in selfknow.test_items(rng, 200)],
        "arithmetic": [{"messages": i["messages"], "turns": [{"expect": {"last_integer": i["last_integer"]}}]} for i in arithmetic.test_items(rng, 200)],
        "tools_single": scripted(tools.test_items(rng, 200, False), False),
        "tools_multi": scripted(tools.test_items(rng, 150, True), True),
        "retrieval_8k": [
            {"haystack": {k: i[k] for k in ("start", "paragraphs", "insert", "ask")}, "turns": [{"expect": {"contains": i["contains"]}}]}
            for i in retrieval.test_items(rng, 50, filler)
        ],
        "json": [{"messages": i["messages"], "schema": i["schema"], "turns": [{"expect": {"json": i["json"]}}]} for i in jsonform.test_items(rng, 200)],
    }  # fmt: skip
    OUT.mkdir(exist_ok=True)
    (OUT / "filler.txt").write_text("".join(p + "\n" for p in filler))
    for group, items in groups.items():
        with open(OUT / f"{group}.jsonl", "w") as f:
            for n, item in enumerate(items):
                # Sums are worked out in thought; of the others every second item thinks.
                thinking = group == "arithmetic" or group not in ("retrieval_8k",) and n % 2 == 0
                if item.get("schema", 0) is None:
                    del item["schema"]
                f.write(json.dumps({"id": f"{group}-{n:03}", "thinking": thinking, **item}, ensure_ascii=False) + "\n")
        print(group, len(items))


if __name__ == "__main__":
    main()
