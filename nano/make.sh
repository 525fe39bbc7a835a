#!/bin/sh
# Makes Nano from nothing on one GPU, in about 35 minutes on an H100: text, training in three phases,
# export, grading, all in `out`. `--rehearse` goes the same way with 60 steps to a phase and the first
# items of each test set, in `out/rehearsal`: a few minutes. Without a GPU, `DEVICE=cpu STEPS=8 ROWS=1
# LIMIT=1 SETS="self json" ./make.sh --rehearse` proves the chain of commands.
#
# Needs Python 3.11+ with torch, numpy, tokenizers and safetensors, and, unless `out/docs.jsonl` is
# there, the documentation of a Rust toolchain (`rustup component add rust-docs`). What is done is not
# done again: an interrupted phase goes on where it last saved.
set -eu
cd "$(dirname "$0")"
case "${1:-}" in
    "") OUT=out SHORT= FEW= ;;
    --rehearse) OUT=out/rehearsal SHORT="--steps ${STEPS:-60} ${ROWS:+--rows $ROWS}" FEW="--limit ${LIMIT:-4}" ;;
    *) echo "usage: make.sh [--rehearse]" >&2; exit 2 ;;
esac
mkdir -p "$OUT"

# phase NAME [PHASE BEFORE IT]
phase() {
    test -f "$OUT/$1.pt" && return
    # shellcheck disable=SC2086 # several words
    python3 train.py --docs out/docs.jsonl --out "$OUT" --phase "$1" --device "${DEVICE:-cuda}" ${2:+--weights "$OUT/$2.pt"} $SHORT
    cp "$OUT/weights.pt" "$OUT/$1.part"
    mv "$OUT/$1.part" "$OUT/$1.pt"
}

if ! test -f out/docs.jsonl; then
    python3 corpus.py "$(rustc --print sysroot)/share/doc/rust/html" out/docs.part
    mv out/docs.part out/docs.jsonl
fi
test -f tokenizer.json || python3 tokens.py out/docs.jsonl
phase main
phase finish main
phase polish finish
python3 plot.py "$OUT/log.jsonl" "$OUT/losses.svg"
python3 export.py "$OUT/state.pt" "$OUT/nano.gguf"
python3 export_checkpoint.py "$OUT/nano.gguf" "$OUT/checkpoint"
# shellcheck disable=SC2086
python3 evaluate.py "$OUT/nano.gguf" ${SETS:-} --json "$OUT/grades.json" $FEW
