"""The digest of the code that a stage runs. Any edit that can change a result changes the digest.

It covers the stage's adapter, its rule's command, and every module of this package that they
import, directly or indirectly. It ignores comments, formatting, docstrings and blocks under
`if TYPE_CHECKING:`. An import from this package is hashed as (digest of the module, imported name,
bound name). So moving a module re-runs nothing, but importing from a different module does.
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

# Modules that can't affect a result, or only through hashed parameters, each with the reason.
# They're listed one by one, so a new module is hashed until someone decides otherwise. A module
# that one of them imports at load time is hashed unless it's listed too. Imports inside their
# functions are ignored.
NEUTRAL = {
    "nanogpt": "has the version, which manifests record",
    "nanogpt.errors": "texts of messages and of the report's title",
    "nanogpt.project": "decides where files are; its callers use the environment's values",
    "nanogpt.config.schema": "settings arrive as parameters",
    "nanogpt.config.corpora": "settings arrive as parameters",
    "nanogpt.config.values": "settings arrive as parameters",
    "nanogpt.config.patterns": "checks names and values",
    "nanogpt.config.parameters": "its effect is the parameters",
    "nanogpt.config.messages": "texts of messages",
    "nanogpt.config.loading": "settings arrive as parameters",
    "nanogpt.config.fragments": "settings arrive as parameters",
    "nanogpt.config.sweeps": "settings arrive as parameters",
    "nanogpt.config.resolving": "settings arrive as parameters",
    "nanogpt.config.foreign": "its effect is the settings in a model's config.json",
    "nanogpt.config.initial": "settings arrive as parameters, and models as inputs",
    "nanogpt.artifacts.records.manifests": "describes results without changing them",
    "nanogpt.artifacts.manifests": "describes results without changing them",
    "nanogpt.artifacts.stages": "wraps the call whose code is hashed",
    "nanogpt.artifacts.cache": "copies results byte for byte",
    "nanogpt.files.buckets": "finds downloads, whose content manifests record",
    "nanogpt.files.clocks": "decides when a stage runs, not what it computes",
    "nanogpt.files.locks": "decides when a stage runs, not what it computes",
    "nanogpt.artifacts.signals": "decides when a training stops, not its result",
    "nanogpt.inference.checks": "decides whether a training starts, not its result",
    "nanogpt.artifacts.states": "decides where a training's state is and who owns it",
    "nanogpt.training.launching": "decides which processes train, not what they compute",
    "nanogpt.training.state_files": "names the files of states, without changing their content",
    "nanogpt.artifacts.code_digest": "identifies code without changing it",
    "nanogpt.artifacts.code_functions": "identifies code without changing it",
}

# These names run code or read files that can only be determined at run time.
COMPUTED_NAMES = {"__import__", "__spec__", "__doc__", "exec", "eval"}
COMPUTED_ATTRIBUTES = {"import_module", "__import__", "__spec__", "__doc__", "__path__"}
COMPUTED_MODULES = {"importlib", "runpy", "pkgutil"}
COMPUTED = (
    "a computed import, which the code digest can't follow; use an import statement (inside a "
    "function if it must run late), and find files with `__file__`"
)

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)


@dataclass(frozen=True)
class _Import:
    """One imported name. module: dotted, with leading dots if relative. name: "" for `import x`.

    bound: the name under which the code uses it.
    """

    module: str
    name: str
    bound: str
    line: int


@dataclass(frozen=True)
class _Source:
    """A parsed source. texts: digests of its dumped syntax tree, cut at groups of own imports.

    uses_files: whether it uses `__file__`, with which a module finds files in its directory.
    foreign: the modules outside this package that it imports, with their line numbers.
    """

    texts: tuple[str, ...]
    imports: tuple[tuple[_Import, ...], ...]
    uses_files: bool
    foreign: tuple[tuple[str, int], ...]


def code_digest(adapter: Path, command: str = "", package: Path | None = None) -> str:
    """Return the digest, 64 hex digits, of the code that a stage runs.

    package: the directory of this package, or of a copy of it.

    Errors: UserError for an import from this package that can't be resolved or is computed, for a
    circular import, and for a file that isn't Python.
    """
    modules = _Modules(package or PACKAGE)
    own = modules.digest_source(adapter, "")
    return _sha256(command, own, *sorted(modules.behind_neutral))


def closure(adapter: Path, package: Path | None = None) -> set[str]:
    """The dotted names of the modules that a digest covers, including packages and neutral ones."""
    modules = _Modules(package or PACKAGE)
    modules.digest_source(adapter, "")
    return modules.seen


def sources(adapter: Path, package: Path | None = None) -> dict[str, Path]:
    """The files whose code a digest covers, by dotted name (the stem for the adapter)."""
    modules = _Modules(package or PACKAGE)
    modules.digest_source(adapter, "")
    found = {name: modules.file_of(name) for name in sorted(modules.seen - NEUTRAL.keys())}
    return {adapter.stem: adapter, **{name: path for name, path in found.items() if path}}


class _Modules:
    """The modules of a package, with the digests computed so far."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.root = package.name
        self.is_installed = any(package.parent.glob(f"{package.name}-*.dist-info"))
        self.seen: set[str] = set()
        self.behind_neutral: set[str] = set()  # digests of modules that neutral ones import
        self._digests: dict[str, str] = {}
        self._files: dict[str, Path | None] = {}
        self._under_way: list[str] = []

    def digest_source(self, path: Path, module: str) -> str:
        """The digest of a source file. module: its dotted name; "" for an adapter."""
        source = _parse(path.read_bytes(), self.root, str(path))
        # Python finds the project's modules next to the package, unless that's a directory of
        # installed packages, and for an adapter also in its own directory.
        beside = [] if self.is_installed else [self.package.parent]
        directories = [*beside, *([] if module else [path.parent])]
        for name, line in source.foreign:
            _check_foreign(name, directories, f"{path}: line {line}")
        parts = [source.texts[0]]
        for imports, text in zip(source.imports, source.texts[1:], strict=True):
            # Sorted, because a formatter orders imports by module path.
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
        """The digest of the module that an import refers to, and the name imported from it."""
        where = f"{path}: line {imported.line}"
        target = self._absolute(imported.module, path, module, where)
        name = imported.name
        if name == "*":
            raise UserError(f"{where}: `import *` from {target}; list the imported names")
        if name and self.file_of(f"{target}.{name}"):
            self.seen.add(target)
            target, name = f"{target}.{name}", ""
        return self._digest(target, where), name

    def _absolute(self, module: str, path: Path, importer: str, where: str) -> str:
        level = len(module) - len(module.lstrip("."))
        if not level:
            return module
        # `.` is the package of a module; for a package's __init__, it's the package itself.
        parts = importer.split(".")[: None if path.name == "__init__.py" else -1]
        if not importer or level > len(parts):
            raise UserError(f"{where}: a relative import that leaves {self.root}; correct it")
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
        """The digest of a module and the packages that contain it, because importing runs them."""
        if module in self._digests:
            return self._digests[module]
        path = self.file_of(module)
        if path is None:
            raise UserError(f"{where}: no module {module} in {self.package}; correct the import")
        if module in self._under_way:
            cycle = " -> ".join([*self._under_way[self._under_way.index(module) :], module])
            raise UserError(f"{where}: circular import: {cycle}; remove one of these imports")
        self.seen.add(module)
        parent = module.rpartition(".")[0]
        around = self._digest(parent, where) if parent else ""
        self._under_way.append(module)
        digest_one = self._digest_neutral if module in NEUTRAL else self.digest_source
        self._digests[module] = self._within(around, digest_one(path, module))
        self._under_way.pop()
        return self._digests[module]

    def _within(self, around: str, own: str) -> str:
        """Combine the digests of a module and of the packages around it."""
        # A package with only a docstring adds nothing, so modules can be moved between packages.
        if own == EMPTY:
            return around
        if around in ("", "neutral", EMPTY):
            return own
        if own == "neutral":
            self.behind_neutral.add(around)
            return own
        return _sha256(own, around)

    def _digest_neutral(self, path: Path, module: str) -> str:
        """Add the modules that a neutral module loads; its own code isn't hashed."""
        for imported in _imports_on_load(path.read_bytes(), self.root, str(path)):
            digest, _ = self._resolve(imported, path, module)
            if digest not in ("", "neutral"):
                self.behind_neutral.add(digest)
        return "neutral"


# Marks a group of imports in a dump. Nothing else in a dump has it, as repr() escapes strings.
_MARK = "\0"


@cache  # a dry run computes the digests of many stages, which share most of their modules
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
    """All statements that run when a module is loaded, including in classes, `if` and `try`."""
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
    """Writes a syntax tree as text, the same on every Python version (unlike ast.dump).

    It omits docstrings and blocks for type checkers. Imports from package `root` are replaced by
    marks and collected in `groups`, in the order of the marks. It's a single pass, because trees
    are large.
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
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == []:
                continue
            if name == "body" and isinstance(node, DOCUMENTED) and _has_docstring(node):
                value = node.body[1:]
            elif isinstance(node, ast.JoinedStr):
                # Python 3.12 adds an empty string after a nested field of a format.
                value = [part for part in node.values if getattr(part, "value", None) != ""]
            text = self.dump(value)
            if text != "[]" or isinstance(node, ast.JoinedStr):
                fields.append(f"{name}={text}")
        return f"{type(node).__name__}({','.join(fields)})"

    def _dump_items(self, nodes: list[object]) -> Iterator[str]:
        """The dumps of a list, with one mark for each group of consecutive own imports."""
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
        """Record the use of `__file__`; raise UserError for a computed import."""
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
    """Nodes without blocks for type checkers, with each `import a, b` split into single names."""
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
    """Raise UserError for an import of a project's module that no digest covers."""
    for directory in directories:
        below = directory / name.split(".")[0]
        if below.with_suffix(".py").is_file() or (below / "__init__.py").is_file():
            raise UserError(
                f"{where}: module {name} is in {directory}, where the code digest doesn't see it; "
                "move it into the package"
            )


def _own_imports(node: object, root: str) -> list[_Import] | None:
    """The names that a statement imports from package `root`; None for other nodes."""
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


# The digest of a source without statements.
EMPTY = _sha256(_sha256("Module()"))
