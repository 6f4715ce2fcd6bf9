"""The models of a server: loaded when they're used, and evicted when memory is short.

The workflow replaces a model by renaming new files onto the old ones. A replaced model is loaded
for new requests; the old one ends with its last request.
"""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from nanogpt.config.messages import nearest
from nanogpt.config.schema import SampleSettings
from nanogpt.data.tokenizers import Tokenizer
from nanogpt.devices import resolve
from nanogpt.errors import UserError
from nanogpt.files.atomic import NAME_BYTES
from nanogpt.inference.engine import Engine
from nanogpt.model.checkpoints import load_model
from nanogpt.model.kernels import prepare_kernels
from nanogpt.ngram.mixing import find_ngrams
from nanogpt.web.generating import Batcher, BusyError
from nanogpt.web.meters import Meters
from nanogpt.web.model_files import ModelFiles, Version, created_of
from nanogpt.web.site import Site
from nanogpt.web.token_names import TokenNames

logger = logging.getLogger(__name__)

# Tokens of prompts and of full windows that a step reads at most.
MOST_READ = 1024
# Weights in memory, as a multiple of their file: as loaded, and in the engine's layout.
COPIES = 2
LOAD_ATTEMPTS = 10
BETWEEN_ATTEMPTS = 0.1  # seconds, while a model's files are replaced
# After a load that failed, we don't try again with the same files for a while: at least for these
# seconds, and as long as loads that fail take more than this share of the time.
LEAST_PAUSE = 1.0
SHARE = 0.05
LONGEST_CLOSE = 5.0  # seconds, for the threads of all models
MOST_LOADS = 5  # of one request, if the model is replaced or evicted at once

MISMATCH = (
    "{name}: the model's files differ from their manifest; if no workflow is replacing them, see "
    "`nanogpt verify results/{name}`"
)


class UnknownModelError(Exception):
    """No model has this name. nearest: the most similar one that exists."""

    def __init__(self, name: str, similar: str | None) -> None:
        super().__init__(name)
        self.name, self.nearest = name, similar


class UnavailableError(Exception):
    """A model can't be loaded now, but later."""


@dataclass(frozen=True)
class _Failure:
    """A load that failed: of which files, why, and until when not to try them again."""

    version: Version | None
    manifests: Version
    error: BaseException
    until: float


@dataclass(eq=False)
class LoadedModel:
    """A model in memory. settings: of its run's samples, with device and dtype resolved.

    start: the tokens that precede a text, if known. n_users: requests that use it.
    """

    name: str
    version: Version
    tokenizer: Tokenizer
    start: tuple[int, ...]
    names: TokenNames
    settings: SampleSettings
    engine: Engine
    batcher: Batcher
    weight_bytes: int
    created: int
    n_users: int = 0
    last_used: float = 0.0
    is_retired: bool = False

    @property
    def n_bytes(self) -> int:
        """The memory of its weights, and of the keys and values."""
        return self.weight_bytes + self.engine.reserved * self.engine.cache_bytes


class Models:
    """The models of a site. Safe to use from several threads and event loops."""

    def __init__(self, site: Site, meters: Meters) -> None:
        self.files = ModelFiles(site.results, site.project)
        self._limits = site.limits
        # Requests, including those whose clients are slow to read what was generated.
        self._most = site.limits.admitted + site.limits.waiting
        self._meters = meters
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedModel] = {}
        self._retired: list[LoadedModel] = []
        self._loading: dict[str, Future[None]] = {}
        self._failed: dict[str, _Failure] = {}
        # The files that match their manifest, by name, so that they're read once for that.
        self._matching: dict[str, tuple[Version, Version]] = {}
        self._loader = ThreadPoolExecutor(1, "load model")

    async def acquire(self, name: str) -> LoadedModel:
        """Return a model, loaded if it isn't yet. Call `release` when its work is done.

        Errors: UnknownModelError; BusyError for too many requests; UnavailableError if memory or
        files are busy; UserError for a damaged model.
        """
        for _ in range(MOST_LOADS):
            found = await asyncio.to_thread(self._find, name)
            if isinstance(found, LoadedModel):
                return found
            try:
                # Without the shield, a request that ends would cancel the load of all.
                await asyncio.shield(asyncio.wrap_future(found))
            except (UserError, UnavailableError) as error:
                with self._lock:
                    has_old = name in self._loaded
                if not has_old:
                    raise
                logger.warning("%s: still serving the version before: %s", name, error)
        raise UnavailableError(f"{name}: the model is replaced or evicted over and over")

    def release(self, model: LoadedModel) -> None:
        """End a request's use of a model."""
        with self._lock:
            model.n_users -= 1
            model.last_used = time.monotonic()
            if model.is_retired and not model.n_users:
                self._retired.remove(model)
                model.batcher.close()

    def check(self, name: str) -> Version:
        """Return the version of a model on disk.

        Errors: UnknownModelError.
        """
        version = self.files.version(name)
        if version is None or not self.files.is_inside(name):
            raise self._unknown(name)
        return version

    def in_memory(self) -> list[LoadedModel]:
        """Return the models in memory."""
        with self._lock:
            return self._all()

    def close(self) -> None:
        """End all threads, and wait a few seconds for that."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        models = self.in_memory()
        for model in models:
            model.batcher.close()
        end = time.monotonic() + LONGEST_CLOSE
        for model in models:
            model.batcher.join(max(0, end - time.monotonic()))

    def _find(self, name: str) -> "LoadedModel | Future[None]":
        """Return a model for a new request, or the load that it must wait for."""
        version = self.files.version(name)
        if version is None and not self.files.has_run(name):
            raise self._unknown(name)
        with self._lock:
            model = self._loaded.get(name)
            if model and model.batcher.is_closed:
                self._retire(model)
                model = None
            failure = self._failure(name, version)
            if model and (version in (None, model.version) or failure):
                if sum(one.n_users for one in self._all()) >= self._most:
                    raise BusyError
                model.n_users += 1
                return model
            if failure and not isinstance(failure.error, UnavailableError):
                raise failure.error.with_traceback(None)
            if version is not None:
                if name not in self._loading:
                    self._loading[name] = self._loader.submit(self._load, name)
                return self._loading[name]
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownModelError:
        names = [model.name for model in self.files.all() if model.name != name]
        return UnknownModelError(name, nearest(name[:NAME_BYTES], names, cutoff=0.5))

    def _all(self) -> list[LoadedModel]:
        return [*self._loaded.values(), *self._retired]

    def _failure(self, name: str, version: Version | None) -> _Failure | None:
        """Return the failure that these files had lately."""
        failure = self._failed.get(name)
        if failure is None or failure.version != version or time.monotonic() > failure.until:
            return None
        return failure if failure.manifests == self.files.manifests(name) else None

    def _load(self, name: str) -> None:
        """Load a model whose files are all of one version."""
        began = time.monotonic()
        version, manifests = None, self.files.manifests(name)
        mismatch = None
        try:
            if not self.files.is_inside(name):
                raise self._unknown(name)
            for attempt in range(LOAD_ATTEMPTS):
                if attempt:
                    time.sleep(BETWEEN_ATTEMPTS)
                version, manifests = self.files.version(name), self.files.manifests(name)
                if version is None or (version, manifests) == mismatch:
                    continue
                if not self._matches(name, version, manifests):
                    mismatch = version, manifests
                    continue
                self._make_room(name)
                try:
                    model = self._read(name, version)
                except UserError:
                    if self.files.version(name) != version:
                        continue
                    raise
                if self.files.version(name) == version:
                    self._add(model)
                    return
                model.batcher.close()
            if mismatch == (version, manifests):
                raise UserError(MISMATCH.format(name=name))
            raise UnavailableError(f"{name}: its files are being replaced; try again")
        except BaseException as error:
            pause = max(LEAST_PAUSE, (time.monotonic() - began) / SHARE)
            if isinstance(error, UnavailableError):
                pause = LEAST_PAUSE
            with self._lock:
                self._failed[name] = _Failure(version, manifests, error, time.monotonic() + pause)
            raise
        finally:
            with self._lock:
                del self._loading[name]

    def _matches(self, name: str, version: Version, manifests: Version) -> bool:
        """Whether these files are those of their manifest."""
        if self._matching.get(name) != (version, manifests):
            if not self.files.match_manifest(name):
                return False
            self._matching[name] = version, manifests
        return True

    def _read(self, name: str, version: Version) -> LoadedModel:
        directory = self.files.directory(name)
        settings = self.files.settings(name)
        # Computing in order, as for `reproducible: anywhere`, is a setting of the whole process.
        settings = resolve(settings.model_copy(update={"reproducible": "machine", "draft": 0}))
        prepare_kernels("machine")
        checkpoint = load_model(directory, settings.device)
        engine = Engine(
            checkpoint.model.eval(),
            settings,
            checkpoint.tokenizer,
            find_ngrams(directory),
            most=self._limits.admitted,
            most_read=MOST_READ,
        )
        return LoadedModel(
            name=name,
            version=version,
            tokenizer=checkpoint.tokenizer,
            start=checkpoint.start,
            names=TokenNames(checkpoint.tokenizer),
            settings=settings,
            engine=engine,
            batcher=Batcher(engine, self._limits.waiting, name, self._meters.generated.inc),
            weight_bytes=COPIES * self.files.n_bytes(name),
            created=created_of(version),
        )

    def _add(self, model: LoadedModel) -> None:
        with self._lock:
            old = self._loaded.get(model.name)
            if old:
                self._retire(old)
            self._failed.pop(model.name, None)
            model.last_used = time.monotonic()
            self._loaded[model.name] = model

    def _retire(self, model: LoadedModel) -> None:
        """Take a model out of use; it ends with its last request. The lock must be held."""
        del self._loaded[model.name]
        model.is_retired = True
        if model.n_users:
            self._retired.append(model)
        else:
            model.batcher.close()

    def _make_room(self, name: str) -> None:
        """Evict models that nobody uses, the least recently used first, until a new one fits."""
        needed = COPIES * self.files.n_bytes(name)
        with self._lock:
            taken = sum(model.n_bytes for model in self._all())
            # The version that the new one replaces goes last, since the new one may be damaged.
            unused = sorted(
                (model for model in self._loaded.values() if not model.n_users),
                key=lambda model: (model.name == name, model.last_used),
            )
            for model in unused:
                if taken + needed <= self._limits.model_bytes:
                    break
                taken -= model.n_bytes
                self._retire(model)
            if taken and taken + needed > self._limits.model_bytes:
                raise UnavailableError(
                    f"{name}: no memory for another model until others are unused; try again later"
                )
