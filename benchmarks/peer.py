"""nanoGPT beside us: its checkout copied, run on our token files, and its weights read.

The copy differs from the checkout in its data, and in its seed where another one is asked for.
"""

import pickle
import re
import shutil
from pathlib import Path

import torch

from nanogpt.config.schema import ModelSettings
from nanogpt.data.batches import load
from nanogpt.model.gpt import GPT

# The command for a training on a CPU in nanoGPT's README.
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
    """A copy of nanoGPT's checkout in `directory`, with our token files by its datasets' names."""
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
    """Let a copy of nanoGPT train with another seed, which it has no option for."""
    script = copy / "train.py"
    script.write_text(re.sub(r"manual_seed\([0-9]+", f"manual_seed({seed}", script.read_text()))


def read_weights(path: Path) -> GPT:
    """The model in a ckpt.pt of nanoGPT, as ours."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    arguments = dict(checkpoint["model_args"])
    vocab_size = arguments.pop("vocab_size")
    model = GPT(ModelSettings(**arguments), vocab_size)
    weights = {
        name.removeprefix("_orig_mod.").removeprefix("transformer."): weight
        for name, weight in checkpoint["model"].items()
        if not name.endswith("lm_head.weight")  # the embedding's, once more
    }
    model.load_state_dict(weights)
    return model
