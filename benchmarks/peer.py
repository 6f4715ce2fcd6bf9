"""Run nanoGPT for comparison: copy its checkout, give it our token files, read its weights.

The copy differs from the checkout only in its data and, on request, its seed.
"""

import pickle
import re
import shutil
from pathlib import Path

import torch

from nanogpt.config.schema import ModelSettings
from nanogpt.data.batches import load
from nanogpt.model.gpt import GPT

# Arguments of the CPU training in nanoGPT's README.
QUICK_START = (
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
)


def copy_with_data(checkout: Path, directory: Path, datasets: dict[str, Path]) -> Path:
    """Copy nanoGPT's checkout to `directory`, with our token files under its dataset names."""
    copy = Path(shutil.copytree(checkout, directory / "nanoGPT"))
    for name, dataset in datasets.items():
        data = copy / "data" / name
        data.mkdir(exist_ok=True)
        for file in ("train.bin", "val.bin"):
            shutil.copy(dataset / file, data)
        vocab_size = load(dataset).tokenizer.vocab_size
        (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
    return copy


def set_seed(copy: Path, seed: int) -> None:
    """Change the seed in a copy of nanoGPT, which has no option for it."""
    script = copy / "train.py"
    script.write_text(re.sub(r"manual_seed\([0-9]+", f"manual_seed({seed}", script.read_text()))


def read_weights(path: Path) -> GPT:
    """Load nanoGPT's ckpt.pt as our model."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    arguments = dict(checkpoint["model_args"])
    vocab_size = arguments.pop("vocab_size")
    model = GPT(ModelSettings(**arguments), vocab_size)
    weights = {
        name.removeprefix("_orig_mod.").removeprefix("transformer."): weight
        for name, weight in checkpoint["model"].items()
        if not name.endswith("lm_head.weight")  # the embedding again
    }
    model.load_state_dict(weights)
    return model
