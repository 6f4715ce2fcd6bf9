"""Groups of a corpus's files: few jobs for small files, and no more than Snakemake can plan."""

from pathlib import Path

import pytest

from nanogpt.config.corpora import Corpus
from nanogpt.planning.grouping import FULL, group_files

OWN, FAR = Corpus(files=["texts"]), Corpus(url="http://corpora.example/[0-9].txt")


def write(directory: Path, sizes: list[int]) -> list[Path]:
    """Write files of these sizes, which take no space on disk."""
    paths = [directory / f"{number}.txt" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with open(path, "wb") as file:
            file.truncate(size)
    return paths


@pytest.mark.parametrize(
    ("sizes", "in_groups"),
    [
        ([10], [1]),
        ([10] * 40, [16, 16, 8]),
        ([10] * 272, [17] * 16),
        ([FULL, 10, 10], [1, 2]),
        ([10, FULL, 10], [2, 1]),
        ([FULL * 500, *[FULL] * 500], [1, *[1] * 500]),
        ([FULL * 2000, *[FULL] * 6], [1, 3, 3]),
    ],
)
def test_local_files_are_grouped_by_size_and_number(
    tmp_path: Path, sizes: list[int], in_groups: list[int]
) -> None:
    paths = write(tmp_path, sizes)
    groups = group_files(paths, OWN)
    assert [len(group.files) for group in groups] == in_groups
    assert [file for group in groups for file in group.files] == list(map(str, paths))
    assert sum(group.n_bytes for group in groups) == sum(sizes)


@pytest.mark.parametrize(("n", "in_group"), [(1, 1), (80, 1), (1000, 1), (1001, 2), (5000, 5)])
def test_downloads_have_at_most_a_thousand_groups(n: int, in_group: int) -> None:
    groups = group_files([Path(f"{number}.txt") for number in range(n)], FAR)
    assert {len(group.files) for group in groups[:-1]} <= {in_group}
    assert len(groups) <= 1000
    assert sum(len(group.files) for group in groups) == n
    assert {group.n_bytes for group in groups} == {0}
