"""Settings that several tests share."""

# What sets the model of `models.modern` apart from GPT-2's, but for its initial weights.
MODERN = {
    "position": "rotary",
    "norm": "rmsnorm",
    "embedding_norm": True,
    "qk_norm": True,
    "activation": "relu2",
    "tie_word_embeddings": False,
    "final_logit_softcapping": 15.0,
}
