"""Typed records of the JSON files that stages write: one module for each kind of file."""
