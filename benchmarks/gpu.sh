#!/usr/bin/env bash
# Run all tests and benchmarks that need an NVIDIA GPU: under eight minutes on a large one.
#
#   benchmarks/gpu.sh PATH_OF_A_NANOGPT_CHECKOUT          on a GPU
#   benchmarks/gpu.sh PATH_OF_A_NANOGPT_CHECKOUT --tiny   a few steps on the CPU, as a check
set -euo pipefail
checkout=$(realpath "${1:?usage: benchmarks/gpu.sh PATH_OF_A_NANOGPT_CHECKOUT [--tiny]}")
cd "$(dirname "$0")/.."

snakemake --cores all results/datasets/{shakespeare_char,shakespeare}/meta.json
if [ "${2:-}" = --tiny ]; then
    python benchmarks/gpu.py "$checkout" --device cpu --tiny
    exit
fi
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
python -m pytest -q -m cuda tests
python benchmarks/gpu.py "$checkout"
NANOGPT_CACHE=off snakemake --cores all --forcerun bench -- results/nanogpt_bench/bench.json
python -m json.tool results/nanogpt_bench/bench.json # with peak memory and MFU
