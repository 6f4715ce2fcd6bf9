"""Settings that several tests share."""

# The settings of `models.modern` that differ from GPT-2, apart from its initial weights.
MODERN = {
    "position": "rotary",
    "norm": "rmsnorm",
    "embedding_norm": True,
    "qk_norm": True,
    "activation": "relu2",
    "tie_word_embeddings": False,
    "final_logit_softcapping": 15.0,
}
