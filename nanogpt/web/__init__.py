"""The page of `nanogpt serve`, and its API."""
