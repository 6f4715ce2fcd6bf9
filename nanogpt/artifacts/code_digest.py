"""The digest of the code that a stage runs: a change that can change a result changes it.

It covers the stage's adapter, the command of its rule, and every module of this package that they
import, directly or not. Comments, formatting, docstrings and blocks under `if TYPE_CHECKING:` don't
count. An import from this package counts as (digest of the module, imported name, bound name), so a
moved module re-runs nothing, but pointing an import at another module does.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nanogpt.errors import UserError

PACKAGE = Path(__file__).parents[1]

# Modules whose effect on a result is hashed as parameters, or that have none, each with the reason.
# Named one by one: a new module counts until somebody has thought about it. The modules that they
# import when they are loaded count unless they are neutral as well. What their functions import
# doesn't.
NEUTRAL = {
    "nanogpt": "holds the version, which manifests record",
    "nanogpt.errors": "words of messages, and of the report's title",
    "nanogpt.project": "decides where files lie; values of variables are its callers'",
    "nanogpt.config.schema": "settings arrive as parameters",
    "nanogpt.config.corpora": "settings arrive as parameters",
    "nanogpt.config.values": "settings arrive as parameters",
    "nanogpt.config.patterns": "checks names and values",
    "nanogpt.config.parameters": "its effect is the parameters",
    "nanogpt.config.messages": "words of messages",
    "nanogpt.config.loading": "settings arrive as parameters",
    "nanogpt.config.fragments": "settings arrive as parameters",
    "nanogpt.config.sweeps": "settings arrive as parameters",
    "nanogpt.config.resolving": "settings arrive as parameters",
    "nanogpt.config.foreign": "its effect is the settings in a model's config.json",
    "nanogpt.config.initial": "settings arrive as parameters, and models as inputs",
    "nanogpt.artifacts.records.manifests": "describes a result, and doesn't change it",
    "nanogpt.artifacts.manifests": "describes a result, and doesn't change it",
    "nanogpt.artifacts.stages": "surrounds the call whose code is hashed",
    "nanogpt.artifacts.cache": "copies results byte for byte",
    "nanogpt.files.clocks": "decides when a stage runs, not what it computes",
    "nanogpt.files.locks": "decides when a stage runs, not what it computes",
    "nanogpt.artifacts.signals": "decides when a training stops, not what it gives",
    "nanogpt.inference.checks": "decides whether a training starts, not what it gives",
    "nanogpt.artifacts.states": "decides where a training's state lies and who owns it",
    "nanogpt.training.launching": "decides which processes train, not what they compute",
    "nanogpt.training.state_files": "names the files of states, and doesn't change what's in them",
    "nanogpt.artifacts.code_digest": "names the code of a result, and doesn't change it",
    "nanogpt.artifacts.code_functions": "names the code of a result, and doesn't change it",
}

# By these, code is run or a file read that only a run could name.
COMPUTED_NAMES = {"__import__", "__spec__", "__doc__", "exec", "eval"}
COMPUTED_ATTRIBUTES = {"import_module", "__import__", "__spec__", "__doc__", "__path__"}
COMPUTED_MODULES = {"importlib", "runpy", "pkgutil"}
COMPUTED = (
    "a computed import, which the code digest can't resolve; write an import statement, inside a "
    "function if it must be late, and find a file by __file__"
)

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)


@dataclass(frozen=True)
class _Import:
    """One imported name. module: dotted, with leading dots if relative. name: none for `import x`.

    bound: the name that it gets, which the code that follows uses.
    """

    module: str
    name: str
    bound: str
    line: int


@dataclass(frozen=True)
class _Source:
    """A parsed source: digests of its syntax tree as text, cut at groups of our own imports.

    uses_files: whether it mentions `__file__`, by which a module finds the files beside it.
    foreign: the modules of others that it imports, with their lines.
    """

    texts: tuple[str, ...]
    imports: tuple[tuple[_Import, ...], ...]
    uses_files: bool
    foreign: tuple[tuple[str, int], ...]


def code_digest(adapter: Path, command: str = "", package: Path | None = None) -> str:
    """The digest, 64 hex digits, of the code that a stage runs.

    package: the directory of this package, or of a copy of it.

    Errors: UserError for an import from this package that can't be resolved or is computed, for
    modules that import each other in a circle, and for a file that isn't Python.
    """
    modules = _Modules(package or PACKAGE)
    own = modules.digest_source(adapter, "")
    return _sha256(command, own, *sorted(modules.behind_neutral))


def closure(adapter: Path, package: Path | None = None) -> set[str]:
    """The dotted names of the modules that a digest covers, packages and neutral ones included."""
    modules = _Modules(package or PACKAGE)
    modules.digest_source(adapter, "")
    return modules.seen


def sources(adapter: Path, package: Path | None = None) -> dict[str, Path]:
    """The files whose code a digest covers, by dotted names; the adapter's name is its stem."""
    modules = _Modules(package or PACKAGE)
    modules.digest_source(adapter, "")
    found = {name: modules.file_of(name) for name in sorted(modules.seen - NEUTRAL.keys())}
    return {adapter.stem: adapter, **{name: path for name, path in found.items() if path}}


class _Modules:
    """The modules of a package, with the digests of those that were needed so far."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.root = package.name
        self.is_installed = any(package.parent.glob(f"{package.name}-*.dist-info"))
        self.seen: set[str] = set()
        self.behind_neutral: set[str] = set()  # digests of what neutral modules load
        self._digests: dict[str, str] = {}
        self._files: dict[str, Path | None] = {}
        self._under_way: list[str] = []

    def digest_source(self, path: Path, module: str) -> str:
        """The digest of a source file. module: its dotted name; empty for an adapter."""
        source = _parse(path.read_bytes(), self.root, str(path))
        # Where Python finds modules of the project: beside the package, unless that is where the
        # packages of others are installed, and for an adapter in its own directory.
        beside = [] if self.is_installed else [self.package.parent]
        directories = [*beside, *([] if module else [path.parent])]
        for name, line in source.foreign:
            _check_foreign(name, directories, f"{path}: line {line}")
        parts = [source.texts[0]]
        for imports, text in zip(source.imports, source.texts[1:], strict=True):
            # Sorted, because a formatter orders imports by their paths.
            parts += [*sorted(self._describe(one, path, module) for one in imports), text]
        if source.uses_files:
            for file in sorted(path.parent.rglob("*")):
                if file.is_file() and file.suffix not in (".py", ".pyc"):
                    name = file.relative_to(path.parent).as_posix()
                    parts.append(_sha256(name, file.read_bytes()))
        return _sha256(*parts)

    def _describe(self, imported: _Import, path: Path, module: str) -> str:
        digest, name = self._resolve(imported, path, module)
        return f"import({digest},{name},{imported.bound})"

    def _resolve(self, imported: _Import, path: Path, module: str) -> tuple[str, str]:
        """The digest of the module that an import names, and the name that it takes from it."""
        where = f"{path}: line {imported.line}"
        target = self._absolute(imported.module, path, module, where)
        name = imported.name
        if name == "*":
            raise UserError(f"{where}: import * of {target}; name what is imported")
        if name and self.file_of(f"{target}.{name}"):
            self.seen.add(target)
            target, name = f"{target}.{name}", ""
        return self._digest(target, where), name

    def _absolute(self, module: str, path: Path, importer: str, where: str) -> str:
        level = len(module) - len(module.lstrip("."))
        if not level:
            return module
        # `.` is the package that a module is in; a package's __init__ is in itself.
        parts = importer.split(".")[: None if path.name == "__init__.py" else -1]
        if not importer or level > len(parts):
            raise UserError(f"{where}: a relative import that leads out of {self.root}; correct it")
        rest = [module[level:]] if module[level:] else []
        return ".".join([*parts[: len(parts) - level + 1], *rest])

    def file_of(self, module: str) -> Path | None:
        """The source of a module, or of a package's __init__."""
        if module not in self._files:
            below = self.package.joinpath(*module.split(".")[1:])
            candidates = (below / "__init__.py", below.with_name(f"{below.name}.py"))
            self._files[module] = next((path for path in candidates if path.is_file()), None)
        return self._files[module]

    def _digest(self, module: str, where: str) -> str:
        """The digest of a module and of the packages that it is in, as importing it runs them."""
        if module in self._digests:
            return self._digests[module]
        path = self.file_of(module)
        if path is None:
            raise UserError(f"{where}: no module {module} in {self.package}; correct the import")
        if module in self._under_way:
            circle = " -> ".join([*self._under_way[self._under_way.index(module) :], module])
            raise UserError(f"{where}: modules import each other: {circle}; break the circle")
        self.seen.add(module)
        parent = module.rpartition(".")[0]
        around = self._digest(parent, where) if parent else ""
        self._under_way.append(module)
        digest_one = self._digest_neutral if module in NEUTRAL else self.digest_source
        self._digests[module] = self._within(around, digest_one(path, module))
        self._under_way.pop()
        return self._digests[module]

    def _within(self, around: str, own: str) -> str:
        """The digest of a module in packages whose digest is `around`."""
        # Packages hold only their docstring: then they add nothing, wherever a module is moved.
        if own == EMPTY:
            return around
        if around in ("", "neutral", EMPTY):
            return own
        if own == "neutral":
            self.behind_neutral.add(around)
            return own
        return _sha256(own, around)

    def _digest_neutral(self, path: Path, module: str) -> str:
        """Note what a neutral module loads; its own code doesn't count."""
        for imported in _imports_on_load(path.read_bytes(), self.root, str(path)):
            digest, _ = self._resolve(imported, path, module)
            if digest not in ("", "neutral"):
                self.behind_neutral.add(digest)
        return "neutral"


# Stands for a group of imports in a dump. No source can hold it: repr() escapes it in strings.
_MARK = "\0"


@cache  # a dry run asks for the digests of many stages, which share most of their modules
def _parse(source: bytes, root: str, path: str) -> _Source:
    dumper = Dumper(root, path)
    text = dumper.dump(parse_source(source, path))
    texts = tuple(_sha256(part) for part in text.split(_MARK))
    return _Source(texts, tuple(dumper.groups), dumper.uses_files, tuple(dumper.foreign))


@cache
def _imports_on_load(source: bytes, root: str, path: str) -> tuple[_Import, ...]:
    """The imports from package `root` that run when a module is loaded."""
    statements = _loaded_statements(parse_source(source, path).body)
    return tuple(one for node in statements for one in _own_imports(node, root) or ())


def _loaded_statements(nodes: Sequence[object]) -> Iterator[object]:
    """All statements that run when a module is loaded, also those in classes, `if`s and `try`s."""
    for node in _statements_that_run(nodes):
        yield node
        if isinstance(node, ast.AST) and not isinstance(node, FUNCTIONS):
            for _, value in ast.iter_fields(node):
                if isinstance(value, list):
                    yield from _loaded_statements(value)


def parse_source(source: bytes, path: str) -> ast.Module:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        return ast.parse(source.decode(encoding))
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno or 1}: {error.msg}; correct it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: line 1: not Python: {error}; correct it") from None


class Dumper:
    """Writes a syntax tree as text, the same on every Python version (ast.dump doesn't).

    Without docstrings and blocks for type checkers, and with marks in place of imports from package
    `root`; `groups` gets these, in the order of their marks. All in one pass, as trees are large.
    """

    def __init__(self, root: str, path: str) -> None:
        self.root = root
        self.path = path
        self.groups: list[tuple[_Import, ...]] = []
        self.uses_files = False
        self.foreign: list[tuple[str, int]] = []

    def dump(self, node: object) -> str:
        if isinstance(node, list):
            return f"[{','.join(self._dump_items(node))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Name | ast.Attribute | ast.Import | ast.ImportFrom):
            self._check_names(node)
        fields = []
        for name, value in ast.iter_fields(node):
            if value is None or value == []:
                continue
            if name == "body" and isinstance(node, DOCUMENTED) and _has_docstring(node):
                value = node.body[1:]
            elif isinstance(node, ast.JoinedStr):
                # Python 3.12 puts an empty string after a nested field of a format.
                value = [part for part in node.values if getattr(part, "value", None) != ""]
            text = self.dump(value)
            if text != "[]" or isinstance(node, ast.JoinedStr):
                fields.append(f"{name}={text}")
        return f"{type(node).__name__}({','.join(fields)})"

    def _dump_items(self, nodes: list[object]) -> Iterator[str]:
        """The dumps of a list, with one mark for imports of ours that follow each other."""
        group: list[_Import] = []
        for node in _statements_that_run(nodes):
            imports = _own_imports(node, self.root)
            if imports is not None:
                group += imports
                continue
            if group:
                self.groups.append(tuple(group))
                group = []
                yield _MARK
            yield self.dump(node)
        if group:
            self.groups.append(tuple(group))
            yield _MARK

    def _check_names(self, node: ast.Name | ast.Attribute | ast.Import | ast.ImportFrom) -> None:
        """Note `__file__`; UserError for an import that only a run could resolve."""
        computed = False
        if isinstance(node, ast.Name):
            computed = node.id in COMPUTED_NAMES
            self.uses_files |= node.id == "__file__"
        elif isinstance(node, ast.Attribute):
            computed = node.attr in COMPUTED_ATTRIBUTES
        else:
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            computed = not COMPUTED_MODULES.isdisjoint(name.split(".")[0] for name in modules)
            if not getattr(node, "level", 0):
                self.foreign += [(name, node.lineno) for name in modules]
        if computed:
            raise UserError(f"{self.path}: line {node.lineno}: {COMPUTED}")


def _has_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _statements_that_run(nodes: Sequence[object]) -> Iterator[object]:
    """Nodes without blocks for type checkers, and with one name for each `import`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield ast.copy_location(ast.Import([alias]), node)
        elif isinstance(node, ast.If) and _is_for_type_checkers(node.test):
            yield from _statements_that_run(node.orelse)
        else:
            yield node


def _is_for_type_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _check_foreign(name: str, directories: Sequence[Path], where: str) -> None:
    """UserError for an import of a module of the project that is in no digest."""
    for directory in directories:
        below = directory / name.split(".")[0]
        if below.with_suffix(".py").is_file() or (below / "__init__.py").is_file():
            raise UserError(
                f"{where}: module {name} is in {directory}, where the code digest doesn't see it; "
                "move it into the package"
            )


def _own_imports(node: object, root: str) -> list[_Import] | None:
    """The names that a statement imports from package `root`; None for any other node."""
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        if node.level or module.split(".")[0] == root:
            return [
                _Import(module, alias.name, alias.asname or alias.name, node.lineno)
                for alias in node.names
            ]
    if isinstance(node, ast.Import):
        (alias,) = node.names
        if alias.name.split(".")[0] == root:
            return [_Import(alias.name, "", alias.asname or alias.name, node.lineno)]
    return None


def _sha256(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


# The digest of a source without any statement.
EMPTY = _sha256(_sha256("Module()"))
