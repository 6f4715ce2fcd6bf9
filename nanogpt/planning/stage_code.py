"""Compute the digest of a stage's current code, without Snakemake."""

import ast
import io
import itertools
import tokenize
from functools import cache
from pathlib import Path

from nanogpt.artifacts.code_digest import PACKAGE, code_digest
from nanogpt.artifacts.code_functions import adapters_of
from nanogpt.project import HERE, Project


def adapter_files(stage: str, project: Project = HERE) -> list[Path]:
    """Return the scripts whose digests make up a stage's code; none for a download.

    Errors: FileNotFoundError if the workflow's files aren't here.
    """
    if stage in ("download", "download_gpt2"):
        return []  # a download's contents don't depend on our code
    scripts = _find_workflow(project) / "scripts"
    files = [scripts / f"{name}.py" for name in adapters_of(stage)]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(file)
    return files


def current_code(stage: str, project: Project = HERE) -> str | None:
    """Return the digest of a stage's current code, as in its rule.

    None if the workflow's files aren't here, as in a project that uses a workflow from elsewhere.
    """
    try:
        files = adapter_files(stage, project)
    except FileNotFoundError:
        return None
    return " ".join(code_digest(f, rule_command(f.stem, _find_workflow(project))) for f in files)


def _find_workflow(project: Project) -> Path:
    own = project.workflow
    return own if (own / "scripts").is_dir() else PACKAGE.parent / "workflow"


@cache
def rule_command(stage: str, workflow: Path) -> str:
    """Return the shell command of a rule; empty if the rule has none.

    It's part of the code digest. Only Snakemake can run a rule file, so this reads the strings
    after `shell:` from it.
    """
    for path in sorted(workflow.glob("rules/*.smk")):
        strings = _find_strings(path.read_text(encoding="utf-8"), stage)
        if strings:
            return strings
    return ""


def _find_strings(text: str, rule: str) -> str:
    """Return the strings after `shell:` in a rule, joined."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    inside = shell = False
    strings: list[str] = []
    for before, token in itertools.pairwise(tokens):
        if before.type == tokenize.NAME and before.start[1] == 0:  # a rule, or code between rules
            inside = before.string == "rule" and token.string == rule
        elif inside and token.type == tokenize.NAME and token.start[1] == 4:
            shell = token.string == "shell"
        elif inside and shell and token.type == tokenize.STRING:
            strings.append(token.string)
    return str(ast.literal_eval(" ".join(strings))) if strings else ""
