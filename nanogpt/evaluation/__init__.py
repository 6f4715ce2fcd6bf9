"""Evaluations and benchmarks of models."""
