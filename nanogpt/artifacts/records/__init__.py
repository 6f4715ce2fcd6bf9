"""The JSON files that stages leave, as typed records: one module for each kind of file."""
