"""What was measured for docs/BENCHMARKS.md, as programs that measure it again."""
