"""On the GPU: the fused Sinkhorn against the plain one, and how long short and long steps take."""

import sys
import time

import torch

import batches
from sinkhorn import sinkhorn, sinkhorn_plain
from train import Trainer


def check_sinkhorn():
    x = torch.randn(3, 1000, 4, 4, device="cuda").mul_(2).requires_grad_()
    probe = torch.randn_like(x)
    outs = []
    for function in (sinkhorn, sinkhorn_plain):
        x.grad = None
        y = function(x, 20, 1e-6)
        (y * probe).sum().backward()
        outs.append((y.detach(), x.grad.clone()))
    for name, a, b in zip(("values", "gradients"), *outs):
        print(f"sinkhorn {name}: {((a - b).norm() / b.norm()).item():.1e}", flush=True)


def main(docs, out):
    torch.backends.cuda.matmul.allow_tf32 = True
    torch._dynamo.config.recompile_limit = 64
    check_sinkhorn()
    documents = batches.Documents(docs)
    trainer = Trainer(out)
    for long in (False, True):
        data = [t.cuda() for t in batches.batch(documents, 1, 0.3, long)]
        for i in range(8):
            torch.cuda.synchronize()
            began = time.time()
            numbers = trainer.train_step(*data)
            torch.cuda.synchronize()
            took = time.time() - began
            speed = data[0].numel() / took
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(f"long {long} step {i}: {took:.3f} s, {speed:.0f} tokens/s, {peak:.1f} GiB, {[round(n, 3) for n in numbers.tolist()]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
