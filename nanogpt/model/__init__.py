"""The GPT, its loss, its size and its directory."""
