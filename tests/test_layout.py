"""The package's layout: imports go one way, modules stay small, interfaces are typed."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanogpt"

# Each package or top-level module imports only from those before it.
ORDER = (
    "errors",
    "project",
    "files",
    "config",
    "devices",
    "artifacts",
    "data",
    "model",
    "ngram",
    "training",
    "inference",
    "evaluation",
    "planning",
    "library",
    "interchange",
    "report",
    "web",
    "cli",
    "__main__",
)
MOST_LINES = 500  # of a module
MOST_FUNCTION_LINES = 60  # without decorators

# Functions that accept or return raw JSON or YAML, by module and name, with the reason.
RAW = {
    "artifacts/records/base.py Record.upgrade": "turns parsed JSON of an older format into JSON",
    "artifacts/records/models.py ModelConfig.upgrade": "the same, of config.json",
    "config/loading.py read_mapping": "parses config.yaml",
    "config/loading.py load": "checks what read_mapping or Snakemake parsed",
    "config/loading.py load_dataset": "the same",
    "config/loading.py add_fragments": "the same, before it's checked",
    "config/fragments.py merge_fragments": "the same",
    "config/fragments.py write_fragment": "writes entries of config.yaml's form",
    "config/reference.py json_schema": "a JSON schema, as pydantic makes it",
    "config/foreign.py read_transformers_config": "checks transformers' config.json",
}

MODULES = sorted(PACKAGE.rglob("*.py"))
each_module = pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
PACKAGES = sorted(path.parent for path in MODULES if path.name == "__init__.py")
each_package = pytest.mark.parametrize(
    "package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT))
)


@cache
def tree_of(module):
    return ast.parse(module.read_text(encoding="utf-8"), str(module))


def dotted_name(module):
    """Return the dotted name of a file, such as `nanogpt.model.gpt`, or `nanogpt.model`."""
    parts = module.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


DOTTED = {dotted_name(module): module for module in MODULES}


def is_package(name):
    return name in DOTTED and DOTTED[name].name == "__init__.py"


@cache
def imports_of(module):
    """Return a module's imports from nanogpt: (line, module, imported name or None).

    Imports inside functions and under TYPE_CHECKING count.
    """
    found = []
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "nanogpt":
                    found.append((node.lineno, alias.name, None))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            if (node.module or "").split(".")[0] == "nanogpt":
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    if submodule in DOTTED:
                        found.append((node.lineno, submodule, None))
                    else:
                        found.append((node.lineno, node.module, alias.name))
    return found


def part_of(name):
    """Return the part of the package that a module belongs to: `model` for `nanogpt.model.gpt`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


# --- Imports --------------------------------------------------------------------------------


def test_order_lists_every_part_of_the_package():
    parts = {part_of(name) for name in DOTTED} - {""}
    assert parts == set(ORDER)


@each_module
def test_imports_go_one_way(module):
    own = part_of(dotted_name(module))
    # The package itself imports names of the library lazily.
    earlier = ORDER[: ORDER.index(own)] if own else ("library",)
    found = [
        f"line {line}: {name}"
        for line, name, _ in imports_of(module)
        if part_of(name) not in ("", own, *earlier)
    ]
    assert found == [], f"{own} may import from {', '.join(earlier)}"


@each_module
def test_no_circular_imports(module):
    start = dotted_name(module)
    paths = [[start]]
    seen = set()
    while paths:
        path = paths.pop()
        for _, name, _ in imports_of(DOTTED[path[-1]]) if path[-1] != "nanogpt" else ():
            assert name != start, f"a circle: {' -> '.join([*path, start])}"
            if name in DOTTED and name not in seen:
                seen.add(name)
                paths.append([*path, name])


@each_module
def test_names_are_imported_from_modules_not_packages(module):
    found = []
    for line, name, taken in imports_of(module):
        # The version is the only name that modules import from a package.
        if is_package(name) and (name, taken) != ("nanogpt", "__version__"):
            found.append(f"line {line}: {taken or name} from a package")
        elif name not in DOTTED:
            found.append(f"line {line}: {name} doesn't exist")
    assert found == []


@each_package
def test_package_has_only_a_docstring(package):
    body = tree_of(package / "__init__.py").body
    assert body, "a docstring is missing"
    first, *rest = body
    assert isinstance(first, ast.Expr), "a docstring is missing"
    assert isinstance(first.value, ast.Constant)
    if package == PACKAGE:
        # The version, which pyproject.toml reads, and the lazy imports.
        imports = [node for node in rest if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [node.module for node in imports] == ["typing"]
    else:
        assert rest == []


# --- The map of modules ---------------------------------------------------------------------


def modules_in_the_architecture():
    """Paths of the modules in the list of docs/ARCHITECTURE.md, below `nanogpt/`."""
    page = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = page.split("    nanogpt/\n")[1].split("\n\n")[0]
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 3  # 6 columns at the top
        name = line.split()[0]
        folders[depth:] = [name.removesuffix("/")] if name.endswith("/") else []
        if name.endswith(".py"):
            yield "/".join([*folders, name])


def test_the_architecture_lists_every_module_once():
    modules = [str(path.relative_to(PACKAGE)) for path in MODULES if path.name != "__init__.py"]
    assert sorted(modules_in_the_architecture()) == sorted(modules)


# --- Sizes ----------------------------------------------------------------------------------


@each_module
def test_module_has_a_docstring_and_at_most_500_lines(module):
    assert ast.get_docstring(tree_of(module)), "a docstring is missing"
    n_lines = len(module.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MOST_LINES


def functions_of(tree, *, nested, outer=()):
    """Yield functions and methods by dotted name. nested: also those inside functions."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        path = (*outer, node.name) if is_function or isinstance(node, ast.ClassDef) else outer
        if is_function:
            yield ".".join(path), node
        if nested or not is_function:
            yield from functions_of(node, nested=nested, outer=path)


@each_module
def test_function_has_at_most_60_lines(module):
    functions = functions_of(tree_of(module), nested=True)
    sizes = {name: node.end_lineno - node.lineno + 1 for name, node in functions}
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES} == {}


# --- Types ----------------------------------------------------------------------------------

MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
UNTYPED = {"Any", "object"}


def last_name(node):
    """Return the last part of a name: `Any` for `typing.Any` and for `Any`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def aliases_of(tree):
    """Return the type aliases of a module, such as `Metadata = dict[str, Any]`."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def untyped_mappings(annotation, aliases):
    """Yield the mappings in an annotation whose values can be anything."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    subscripted = set()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript):
            subscripted.add(node.value)
            if last_name(node.value) in MAPPINGS and isinstance(node.slice, ast.Tuple):
                values = {last_name(part) for part in ast.walk(node.slice.elts[-1])}
                if values & UNTYPED:
                    yield ast.unparse(node)
        elif last_name(node) in MAPPINGS and node not in subscripted:
            yield ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id in aliases:
            rest = {name: value for name, value in aliases.items() if name != node.id}
            yield from untyped_mappings(aliases[node.id], rest)


def is_public(name):
    return not any(part.startswith("_") for part in name.split("."))


def test_listed_raw_readers_exist():
    names = {
        f"{module.relative_to(PACKAGE)} {name}"
        for module in MODULES
        for name, _ in functions_of(tree_of(module), nested=False)
    }
    assert set(RAW) - names == set()


@each_module
def test_a_public_function_has_no_untyped_mapping(module):
    tree = tree_of(module)
    if not is_public(".".join(module.relative_to(PACKAGE).with_suffix("").parts)):
        return
    found = []
    for name, node in functions_of(tree, nested=False):
        if not is_public(name) or f"{module.relative_to(PACKAGE)} {name}" in RAW:
            continue
        arguments = node.args
        annotated = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        annotated += [one for one in (arguments.vararg, arguments.kwarg) if one]
        annotations = [one.annotation for one in annotated if one.annotation]
        annotations += [node.returns] if node.returns else []
        for annotation in annotations:
            found += [
                f"line {node.lineno}: {name}: {mapping}"
                for mapping in untyped_mappings(annotation, aliases_of(tree))
            ]
    assert found == []
