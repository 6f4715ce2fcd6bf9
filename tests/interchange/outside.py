"""Run transformers on exports in a process that can't import our package.

Reads a JSON list of {directory, prompt} from standard input, prints a JSON list of results,
and writes the logits to <directory>.safetensors.
"""

import json
import sys

sys.modules["nanogpt"] = None  # type: ignore[assignment]  # an import of it fails

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline  # noqa: E402


def look(directory: str, prompt: str) -> dict:
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    window = model.config.max_position_embeddings
    torch.manual_seed(0)
    some = torch.randint(model.config.vocab_size, (2, window))
    with torch.no_grad():
        logits = model(some).logits
        greedy = model.generate(ids, do_sample=False, max_new_tokens=16)[0].tolist()
        samples = model.generate(ids, do_sample=True, num_return_sequences=40)
    save_file({"logits": logits}, f"{directory}.safetensors")
    generate = pipeline("text-generation", model=directory)
    try:
        tokenizer("☃")
        unknown = "taken"
    except Exception:  # raised by the tokenizers library, which has no exception class
        unknown = "refused"
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {
        "architecture": type(model).__name__,
        "ids": ids[0].tolist(),
        "some": some.tolist(),
        "greedy": greedy,
        "text": tokenizer.decode(greedy),
        "samples": samples.tolist(),
        "piped": generate(prompt)[0]["generated_text"],
        "unknown": unknown,
        "max_length": tokenizer.model_max_length,
        "special": [getattr(model.config, name) for name in special],
        "special_of_generation": [getattr(model.generation_config, name) for name in special],
    }


torch.set_num_threads(1)
json.dump([look(**request) for request in json.load(sys.stdin)], sys.stdout)
