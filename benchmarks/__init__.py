"""Programs that repeat the measurements of docs/BENCHMARKS.md."""
