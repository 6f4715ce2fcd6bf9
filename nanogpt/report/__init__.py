"""Runs side by side: tables, charts, a page, TensorBoard's files."""
