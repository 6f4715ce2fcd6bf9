"""Atomic files, locks and downloads."""
