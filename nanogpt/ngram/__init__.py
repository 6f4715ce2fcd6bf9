"""N-gram models: a baseline beside a GPT."""
