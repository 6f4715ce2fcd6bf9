"""Files that are never half written, locks and downloads."""
