"""transformers computes the same as we do from an export, without our package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nanogpt.errors import UserError
from nanogpt.interchange.hugging_face_export import export_hugging_face
from nanogpt.interchange.sources import read_source
from nanogpt.model.checkpoints import load_model
from tests.checkouts import own_environment
from tests.interchange.models import (
    GPT2,
    MIRROR,
    MODERN,
    OTHERS,
    PROMPT,
    TOKENIZERS,
    assert_equal,
    greedy,
    write_model,
)
from tests.sharing import made_once

OUTSIDE = Path(__file__).with_name("outside.py")
KINDS = [kind for kind in TOKENIZERS if kind != "gpt2" or MIRROR]
# Both architectures with each tokenizer, and their other settings with characters.
CASES = {
    **{f"gpt2, {kind}": (GPT2, kind) for kind in KINDS},
    **{f"modern, {kind}": (MODERN, kind) for kind in KINDS},
    **{name: (settings, "char") for name, settings in OTHERS.items()},
}


def export_all(root):
    """Write a model, its export, and transformers' results for each case."""
    requests = []
    for number, (settings, kind) in enumerate(CASES.values()):
        ours, theirs = root / f"{number}/model", root / f"{number}/exported"
        write_model(ours, settings, kind, seed=number)
        export_hugging_face(ours, theirs)
        requests.append({"directory": str(theirs), "prompt": PROMPT})
    run = subprocess.run(
        [sys.executable, "-P", OUTSIDE],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        env=own_environment(HF_HUB_OFFLINE="1"),
        cwd=root,
    )
    assert run.returncode == 0, run.stderr
    (root / "seen.json").write_text(run.stdout)


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """The directory of all cases, created once for all workers of a test run."""
    pytest.importorskip("transformers")
    return made_once(tmp_path_factory, "hugging_face_exports", export_all)


@pytest.fixture
def directories(exports):
    """Our model and its export, by case."""
    return {
        name: (exports / f"{number}/model", exports / f"{number}/exported")
        for number, name in enumerate(CASES)
    }


@pytest.fixture
def seen(exports):
    """transformers' results for each export, by case."""
    return dict(zip(CASES, json.loads((exports / "seen.json").read_text()), strict=True))


each_case = pytest.mark.parametrize("case", CASES)


@each_case
def test_an_export_has_the_same_logits(case, directories, seen):
    model = load_model(directories[case][0]).model.eval()
    logits = load_file(f"{directories[case][1]}.safetensors")["logits"]
    assert logits.std() > 0.3  # otherwise everything would be equal
    with torch.no_grad():
        ours = model(torch.tensor(seen[case]["some"]))
    assert (ours - logits).abs().max().item() < 1e-4
    wanted = "GPT2LMHeadModel" if case.startswith("gpt2") else "NanoChatForCausalLM"
    assert seen[case]["architecture"] == wanted


@each_case
def test_an_export_has_the_same_tokens_and_the_same_greedy_text(case, directories, seen):
    checkpoint = load_model(directories[case][0])
    ids = checkpoint.tokenizer.encode_prompt(PROMPT, "error").tolist()
    assert seen[case]["ids"] == ids
    tokens = greedy(checkpoint.model.eval(), ids, 16)
    end = seen[case]["special"][1]
    if end in tokens:
        tokens = tokens[: tokens.index(end) + 1]
    assert seen[case]["greedy"] == tokens
    assert seen[case]["text"] == checkpoint.tokenizer.decode(tokens)


@each_case
def test_samples_of_an_export_do_not_end_early_or_leave_the_window(case, seen):
    found = seen[case]
    _, end, _ = found["special"]
    n_prompt, n_new = len(found["ids"]), GPT2.block_size // 2
    assert len(found["samples"]) == 40
    for sample in found["samples"]:
        new = sample[n_prompt:]
        assert len(new) == n_new or (end is not None and end in new)
    assert found["piped"].startswith(PROMPT)
    assert n_prompt + n_new <= GPT2.block_size == found["max_length"]


@each_case
def test_special_tokens_are_the_tokenizers_only(case, directories, seen):
    vocab_size = load_model(directories[case][0]).model.vocab_size
    end = vocab_size - 1 if CASES[case][1] in ("bpe", "gpt2") else None
    assert seen[case]["special"] == [end, end, None]
    assert seen[case]["special_of_generation"] == [end, end, None]
    config = json.loads((directories[case][1] / "config.json").read_text())
    assert {"bos_token_id", "eos_token_id", "pad_token_id"} <= config.keys()


@each_case
def test_an_unknown_character_is_rejected(case, seen):
    wanted = "refused" if CASES[case][1] == "char" else "taken"
    assert seen[case]["unknown"] == wanted


@each_case
def test_an_export_is_imported_as_the_same_model(case, directories):
    ours, theirs = directories[case]
    checkpoint = read_source(theirs)
    assert_equal(load_model(ours), checkpoint)
    assert checkpoint.start == load_model(ours).start


def test_the_same_model_gives_the_same_bytes(directories, tmp_path):
    ours, theirs = directories["modern, bpe"]
    export_hugging_face(ours, tmp_path / "again")
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GPT2.model_copy(update={"position": "rotary"}), "position: rotary"),
        (GPT2.model_copy(update={"final_logit_softcapping": 3.0}), "final_logit_softcapping: 3.0"),
        (MODERN.model_copy(update={"qk_norm": False}), "qk_norm: false"),
        (MODERN.model_copy(update={"bias": True}), "bias: true"),
    ],
    ids=["rotary gpt2", "capped gpt2", "modern without norms", "modern with biases"],
)
def test_settings_that_transformers_does_not_support_are_rejected_by_name(
    settings, words, tmp_path
):
    write_model(tmp_path / "model", settings)
    with pytest.raises(UserError) as error:
        export_hugging_face(tmp_path / "model", tmp_path / "exported")
    assert words in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
