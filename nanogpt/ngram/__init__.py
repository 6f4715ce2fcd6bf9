"""N-gram models: a baseline for GPTs, and a part of mixtures with them."""
