"""Trains Nano on one GPU: `train.py --docs FILE --out FOLDER --seconds N` goes on where it stopped.

A rehearsal is the same with fewer `--steps` to a phase, on a CPU also with fewer `--rows` to a batch.
"""

import argparse
import json
import math
import os
import pathlib
import time

import torch
import torch.nn.functional as F

import optim
from batches import LONG, Schedule
from config import NANO
from model import Context, Model

# The main phase is left when its rate is down to a third; the finish begins with a fresh optimiser.
STEPS = {"main": 6300, "finish": 2000, "polish": 2200}
LEFT_AT, LATER_RATE = 5323, 0.35
MUON_RATE, ADAM_RATE, WARMUP, DECAY_FROM, LAST = 8e-4, 2e-3, 60, 0.45, 0.01
MTP, INDEX, BALANCE = 0.25, 1.0, 1e-3


def initialise(model, seed=1):
    torch.manual_seed(seed)
    c = model.c
    depth = 2 * len(c.ratios)
    for name, p in model.named_parameters():
        leaf = name.split(".")[-1]
        if leaf in ("token_embd", "output"):
            torch.nn.init.normal_(p, std=0.02 if leaf == "output" else 0.5)
        elif leaf == "fn":
            torch.nn.init.normal_(p, std=0.01)
        elif p.dim() >= 2 and leaf != "attn_compressor_ape" and leaf != "indexer_compressor_ape":
            std = p.shape[-1] ** -0.5
            if leaf.startswith(("attn_output_b", "ffn_down")):
                std /= depth**0.5
            torch.nn.init.normal_(p, std=std)
    # Every layer begins by reading mostly one stream and keeping the streams apart.
    for i, block in enumerate([*model.blk, *model.mtp]):
        for j, hyper in enumerate((block.hc_attn, block.hc_ffn)):
            n = c.streams
            with torch.no_grad():
                hyper.base[:n] = -1.5
                hyper.base[(2 * i + j) % n] = 1.5
                hyper.base[2 * n :] = (4 * torch.eye(n)).flatten()
        if block.hashed:
            g = torch.Generator().manual_seed(seed * 100 + i)
            ranks = torch.rand(c.vocab, c.experts, generator=g).argsort(-1)
            block.ffn_gate_tid2eid.copy_(ranks[:, : c.experts_used])


def rate(phase, step, steps):
    """Warm up, hold, come down in a straight line."""
    done = step / steps
    warm = min(1.0, (step + 1) / WARMUP)
    if phase != "main":
        return LATER_RATE * warm * max(LAST, 1 - done)
    return warm if done < DECAY_FROM else LAST + (1 - LAST) * (1 - done) / (1 - DECAY_FROM)


def cross_entropy(y, output, target, weight):
    """Weighted mean loss, and how often the most likely token is right where the model speaks."""
    logits = F.linear(y.bfloat16(), output.bfloat16()).float().flatten(0, 1)
    loss = F.cross_entropy(logits, target.flatten(), reduction="none")
    weight = weight.flatten()
    own = weight >= 0.9
    right = ((logits.detach().argmax(-1) == target.flatten()) & own).sum() / own.sum().clamp(min=1)
    mean = (loss * weight).sum() / weight.sum().clamp(min=1)
    with torch.no_grad():
        spoken = (loss * own).sum() / own.sum().clamp(min=1)
    return mean, spoken, right


class Trainer:
    def __init__(self, out, phase="main", steps=None, device="cuda"):
        self.out, self.phase, self.device = pathlib.Path(out), phase, device
        self.steps = steps or STEPS[phase]
        self.model = Model(NANO)
        initialise(self.model)
        self.model.to(device)
        muon, adam = optim.split(self.model)
        self.muon = optim.Muon(muon)
        self.adam = torch.optim.Adam(adam, lr=ADAM_RATE, betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.adam_parameters = adam
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.angles = {}
        self.loss = cross_entropy
        if device == "cuda":
            self.loss = torch.compile(cross_entropy, dynamic=False)
            for block in [*self.model.blk, *self.model.mtp]:
                block.compile(dynamic=False)

    def context(self, tokens, doc):
        length = tokens.shape[1]
        ctx = Context(NANO, tokens, doc, aux=True, dtype=torch.bfloat16, angles=self.angles.get(length))
        self.angles[length] = ctx.angles
        return ctx

    def train_step(self, tokens, weight, doc):
        model = self.model
        y, ahead, _, index_losses, loads = model(self.context(tokens, doc))
        target = torch.roll(tokens, -1, 1)
        main, spoken, right = self.loss(y, model.output, target, weight)
        # What follows the next token counts if both predictions stay in one document.
        later = torch.roll(weight, -1, 1) * (weight > 0)
        mtp, _, mtp_right = self.loss(ahead, model.output, torch.roll(tokens, -2, 1), later)
        index = sum(index_losses)
        (main + MTP * mtp + INDEX * index).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.adam_parameters, 1.0)
        factor = rate(self.phase, self.step, self.steps)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * factor
        self.adam.step()
        self.muon.step(MUON_RATE * factor)
        for p in model.parameters():
            p.grad = None
        with torch.no_grad():
            for block, load in zip([*model.blk, *model.mtp], loads):
                if not block.hashed:
                    block.exp_probs_b += BALANCE * torch.sign(load.mean() - load)
        self.step += 1
        self.tokens += tokens.numel()
        return torch.stack((main, spoken, right, mtp, mtp_right, index, norm, torch.stack([l.max() for l in loads]).max())).detach()

    def run(self, docs, seconds, rows=None):
        began = time.time()
        until = round(self.steps * LEFT_AT / STEPS["main"]) if self.phase == "main" else self.steps
        data = Schedule(docs, self.phase, self.steps, self.step, rows)
        on_gpu = self.device == "cuda"
        workers = min(12, os.cpu_count())
        loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=6, pin_memory=on_gpu)
        log = open(self.out / "log.jsonl", "a")
        shown = time.time()
        for tokens, weight, doc in loader:
            if self.step % 400 == 399:
                self.seconds, since = self.seconds + time.time() - began, time.time()
                seconds, began = seconds - (since - began), since
                self.save()
            if self.step >= until or time.time() - began > seconds:
                break
            long = tokens.shape[1] == LONG[1]
            numbers = self.train_step(*(t.to(self.device, non_blocking=True) for t in (tokens, weight, doc)))
            if self.step % 20 == 0 or self.step < 4 or long and self.step % 60 == 0:
                names = ("loss", "spoken", "right", "mtp", "mtp_right", "index", "norm", "load")
                entry = dict(zip(names, (round(x, 5) for x in numbers.tolist())))
                if not math.isfinite(entry["loss"]):
                    raise SystemExit(f"step {self.step}: the loss is not finite")
                entry = {"phase": self.phase, "step": self.step, "tokens": self.tokens, "long": long, "seconds": round(self.seconds + time.time() - began, 1), **entry}
                log.write(json.dumps(entry) + "\n")
                log.flush()
                if self.step % 200 == 0 or self.step < 4 or time.time() - shown > 20:
                    shown = time.time()
                    print(json.dumps(entry), flush=True)
        if on_gpu:
            torch.cuda.synchronize()
        self.seconds += time.time() - began

    def save(self):
        state = {
            "phase": self.phase,
            "model": self.model.state_dict(), "adam": self.adam.state_dict(), "muon": self.muon.buffers,
            "step": self.step, "tokens": self.tokens, "seconds": self.seconds,
        }  # fmt: skip
        self.write(state, "state.pt")
        half = {k: v.half() if v.is_floating_point() else v.to(torch.int16) for k, v in self.model.state_dict().items()}
        self.write(half, "weights.pt")

    def write(self, state, name):
        """A run that ends while it saves keeps what it had."""
        part = self.out / (name + ".part")
        torch.save(state, part)
        part.replace(self.out / name)

    def restore(self, weights):
        """Goes on with its own state; a phase that has none yet begins with these weights."""
        path = self.out / "state.pt"
        state = torch.load(path, map_location=self.device) if path.exists() else None
        if not state or state["phase"] != self.phase:
            if weights:
                self.model.load_state_dict(torch.load(weights, map_location=self.device))
            return
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.muon.buffers = state["muon"]
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--docs", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seconds", type=float, default=1e9)
    p.add_argument("--phase", choices=STEPS, default="main")
    p.add_argument("--weights", help="what a phase begins with")
    p.add_argument("--steps", type=int, help="a phase of this many steps instead of its own number")
    p.add_argument("--rows", type=int, help="at most so many sequences in a batch")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    a = p.parse_args()
    pathlib.Path(a.out).mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch._dynamo.config.recompile_limit = 64
    trainer = Trainer(a.out, a.phase, a.steps, a.device)
    trainer.restore(a.weights)
    trainer.run(a.docs, a.seconds, a.rows)
    trainer.save()
    print(f"step {trainer.step} of {a.phase}, {trainer.tokens} tokens, {trainer.seconds:.0f} s")
    if a.device == "cuda":
        print(f"memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
