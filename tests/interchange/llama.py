"""Run llama.cpp on a GGUF file in a separate process, because it prints a lot.

Reads {path, prompts, n, n_context} from standard input; writes JSON to the file given as argument.
"""

import json
import sys
from pathlib import Path

import xllamacpp

request = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path = request["path"]
params.n_ctx = request["n_context"]
params.n_parallel = 1
params.cpuparams.n_threads = 1
params.warmup = False
server = xllamacpp.Server(params)


def ask(prompt: str, n: int) -> dict:
    settings = {"temperature": 0, "n_probs": 20, "cache_prompt": False}
    return server.handle_completions({"prompt": prompt, "n_predict": n, **settings})


def look(prompt: str) -> dict:
    one, many = ask(prompt, 1), ask(prompt, request["n"])
    first = one["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {
        "first": [[candidate["id"], candidate["logprob"]] for candidate in first],
        "n_prompt": one["usage"]["prompt_tokens"],
        "text": many["choices"][0]["text"],
        "n": many["usage"]["completion_tokens"],
        "ended": many["choices"][0]["finish_reason"] == "stop",
    }


Path(sys.argv[1]).write_text(json.dumps([look(prompt) for prompt in request["prompts"]]))
