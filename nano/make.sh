#!/bin/sh
# Makes Nano from nothing on one GPU, in about 35 minutes on an H100: text, training in three phases,
# export, grading. Needs Python 3.11+ with torch, numpy, tokenizers and safetensors, and a Rust toolchain's
# documentation (`rustup component add rust-docs`). An interrupted phase goes on where it stopped.
set -eu
cd "$(dirname "$0")"
mkdir -p out
python3 corpus.py "$(rustc --print sysroot)/share/doc/rust/html" out/docs.jsonl
test -f tokenizer.json || python3 tokens.py out/docs.jsonl
python3 train.py --docs out/docs.jsonl --out out --phase main
cp out/weights.pt out/main.pt
python3 train.py --docs out/docs.jsonl --out out --phase finish --weights out/main.pt
cp out/weights.pt out/finish.pt
python3 train.py --docs out/docs.jsonl --out out --phase polish --weights out/finish.pt
python3 export.py out/state.pt out/nano.gguf
python3 export_checkpoint.py out/nano.gguf out/checkpoint
python3 evaluate.py out/nano.gguf
