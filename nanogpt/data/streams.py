"""Process a stream with several threads, in order and in constant memory, with a progress bar."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

BATCH = 1 << 18  # characters per task of a thread

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedPool(ThreadPoolExecutor):
    """Threads that process a stream a few items ahead of the results' consumer."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._most_pending = 2 * threads

    def in_order(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield the function's result for each item. (`map` would read all items first.)"""
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(self.submit(function, item))
            if len(pending) > self._most_pending:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def in_batches(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Group items into lists of at least BATCH characters, as one document can be a tiny task."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += length(item)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def progress_bar(task: str, files: Sequence[Path]) -> Any:
    """A tqdm bar over the total size of some files on disk, shown only on a terminal."""
    size = sum(path.stat().st_size for path in files if path.is_file())
    return tqdm(desc=task, total=size, unit="B", unit_scale=True, disable=None)
