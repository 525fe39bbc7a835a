"""Draws the losses of a training log, one line per loss, phases side by side: `plot.py LOG.jsonl OUT.svg`."""

import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, TOP = 860, 420, 60, 30
LINES = [("loss", "all text, weighted", "#888888"), ("spoken", "the model's own words", "#c0392b"),
         ("mtp", "MTP, two tokens ahead", "#2e6da4"), ("index", "indexer, KL", "#3a8f4f")]  # fmt: skip
LOW, HIGH = 0.01, 10.0


def main(log, out_file):
    entries = [json.loads(line) for line in open(log)]
    starts, total = {}, 0
    for e in entries:
        if e["phase"] not in starts:
            starts[e["phase"]] = total
        e["at"] = starts[e["phase"]] + e["tokens"]
        total = max(total, e["at"])
    x = lambda tokens: LEFT + tokens / total * (WIDTH - LEFT - 20)
    y = lambda v: TOP + (math.log(HIGH) - math.log(max(LOW, v))) / math.log(HIGH / LOW) * (HEIGHT - TOP - 50)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']  # fmt: skip
    for v in (0.01, 0.1, 1, 10):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#dddddd"/><text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    for millions in range(0, int(total / 1e6) + 1, 100):
        out.append(f'<text x="{x(millions * 1e6):.1f}" y="{HEIGHT - 28}" text-anchor="middle">{millions} M</text>')
    for phase, at in starts.items():
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{HEIGHT - 50}" stroke="#aaaaaa" stroke-dasharray="3 3"/><text x="{x(at) + 4:.1f}" y="{TOP + 10}" fill="#555555">{phase}</text>')
    for n, (key, label, colour) in enumerate(LINES):
        # Short sequences only: long ones are another mixture. A running mean of five entries.
        kept = [e for e in entries if not e["long"]]
        points = []
        for i, e in enumerate(kept):
            near = [k[key] for k in kept[max(0, i - 2) : i + 3] if k["phase"] == e["phase"]]
            points.append(f"{x(e['at']):.1f},{y(sum(near) / len(near)):.1f}")
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{" ".join(points)}"/>')
        out.append(f'<text x="{WIDTH - 190}" y="{TOP + 40 + 16 * n}" fill="{colour}">{label}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">tokens</text></svg>')
    pathlib.Path(out_file).write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
