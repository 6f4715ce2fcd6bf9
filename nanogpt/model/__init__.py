"""The GPT: architecture, loss, size, and files."""
