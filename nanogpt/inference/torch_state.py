"""Torch's settings while an engine works, and the caller's restored afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Undo the caller's torch contexts: no autocast, and the CPU as the default device."""
    cast = [device for device in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(device)]
    # A default device is a function mode in torch. Reading it directly takes a hundred times as
    # long as this check.
    has_mode = torch._C._is_torch_function_mode_enabled()
    if not (cast or has_mode):
        yield
        return
    with ExitStack() as stack:
        for device in cast:
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.device("cpu"))
        yield


class _SmallOperations:
    """The state of `small_operations`: threads inside it, and torch's settings before."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.n_inside = 0
        self.n_threads = 1
        self.enabled = True


_small = _SmallOperations()


@contextmanager
def small_operations() -> Iterator[None]:
    """Use one thread, and oneDNN only where it's called explicitly.

    For a few numbers, oneDNN's GELU takes five times as long as torch's own. Both settings apply to
    the whole process, so the last of several threads restores them.
    """
    onednn = torch.backends.mkldnn
    with _small.lock:
        if not _small.n_inside:
            _small.n_threads, _small.enabled = torch.get_num_threads(), bool(onednn.enabled)
        _small.n_inside += 1
        torch.set_num_threads(1)
        onednn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        with _small.lock:
            _small.n_inside -= 1
            torch.set_num_threads(_small.n_threads)
            if not _small.n_inside:
                onednn.enabled = _small.enabled  # type: ignore[assignment]
