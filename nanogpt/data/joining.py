"""Put the splits of a dataset together from the token files of groups, as one file or as shards."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from nanogpt.artifacts.records.base import read_record
from nanogpt.artifacts.records.datasets import DatasetMeta, ShardMeta, SplitMeta
from nanogpt.artifacts.records.groups import GroupCounts, SplitTotals
from nanogpt.data.shards import token_files
from nanogpt.files.atomic import atomic_write
from nanogpt.project import SHARD, token_file

BLOCK = 1 << 18  # bytes of a token file copied at a time


def put_together(
    split: str, totals: Sequence[SplitTotals], groups: Sequence[Path], directory: Path
) -> SplitMeta:
    """Join the token files of groups in their directories; without directories, list shards."""
    if groups:
        name = token_file(split)
        return add_up(totals, _join([group / name for group in groups], directory / name))
    shards = tuple(ShardMeta(n_tokens=t.n_tokens, sha256=t.sha256) for t in totals)
    digest = hashlib.sha256("\n".join(shard.sha256 for shard in shards).encode())
    return add_up(totals, digest.hexdigest()).model_copy(update={"shards": shards})


def _join(parts: Sequence[Path], path: Path) -> str:
    """Concatenate files into one; return its sha256."""
    digest = hashlib.sha256()
    with atomic_write(path) as whole:
        for part in parts:
            with open(part, "rb") as file:
                while block := file.read(BLOCK):
                    whole.write(block)
                    digest.update(block)
    return digest.hexdigest()


def add_up(groups: Sequence[SplitTotals], sha256: str) -> SplitMeta:
    """Add up a split's totals over all groups. sha256: of its token file."""
    return SplitMeta(
        n_tokens=sum(group.n_tokens for group in groups),
        n_characters=sum(group.n_characters for group in groups),
        n_bytes=sum(group.n_bytes for group in groups),
        n_documents=sum(group.n_documents for group in groups),
        sha256=sha256,
    )


def remove_old_token_files(directory: Path, meta: DatasetMeta) -> None:
    """Remove token files that meta.json doesn't list, such as those from before sharding."""
    kept = {*token_files("train", meta.train), *token_files("val", meta.val)}
    for path in directory.glob("*.bin"):
        is_ours = path.stem in ("train", "val") or SHARD.fullmatch(path.name)
        if is_ours and path.name not in kept:
            path.unlink()


def shard_digests(directory: Path) -> dict[str, str]:
    """The sha256 of a dataset's shards, by path, from its meta.json; empty without shards."""
    meta = read_record(directory / "meta.json", DatasetMeta)
    return {
        str(directory / token_file(split, number)): shard.sha256
        for split, of_split in (("train", meta.train), ("val", meta.val))
        for number, shard in enumerate(of_split.shards)
    }


def counted_digests(paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of a corpus's files, by path, from the counts.json of its groups."""
    counts = (read_record(Path(path), GroupCounts) for path in paths)
    return {file.path: file.sha256 for group in counts for file in group.files}
