"""Export datasets as nanoGPT's directories data/<name>/: train.bin, val.bin and meta.pkl."""

import shutil
from pathlib import Path

from nanogpt.data.batches import load
from nanogpt.data.byte_pairs import GPT2_SHA256
from nanogpt.data.shards import token_files
from nanogpt.errors import UserError
from nanogpt.files.atomic import atomic_write, sha256_file
from nanogpt.interchange.nanogpt_meta import write_meta


def export_dataset(directory: Path, destination: Path) -> str:
    """Write a dataset as a directory data/<name>/ of nanoGPT: train.bin, val.bin, meta.pkl.

    Returns one line for the terminal.

    Errors: UserError for a directory that isn't a dataset, for tokens that nanoGPT can't read, and
    for a destination that can't be created.
    """
    files = load(directory)
    if files.train.dtype.itemsize > 2:
        raise UserError(
            f"{directory}: its vocabulary of {files.tokenizer.vocab_size:,} tokens is too large "
            f"for nanoGPT's uint16 files; lower vocab_size to 65,535"
        )
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{destination}: can't be created: {error.strerror}; name another destination"
        ) from None
    for split, of_split in (("train", files.meta.train), ("val", files.meta.val)):
        with atomic_write(destination / f"{split}.bin") as copy:
            for name in token_files(split, of_split):
                with open(directory / name, "rb") as source:
                    shutil.copyfileobj(source, copy)
    meta_file = destination / "meta.pkl"
    if sha256_file(directory / "tokenizer.json") == GPT2_SHA256:
        meta_file.unlink(missing_ok=True)  # left by an earlier export of another dataset
        return "train.bin and val.bin for nanoGPT"
    write_meta(meta_file, files.tokenizer)
    return "train.bin, val.bin and meta.pkl for nanoGPT"
