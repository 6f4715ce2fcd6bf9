"""Check the project's words, as `make lint` does: stale phrases, long lines, clause headings.

It reads every file that git tracks, code and comments included, so a phrase is only listed
if it's wrong wherever it appears.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = 100  # columns

# What to write instead of each phrase. A lookahead or lookbehind spares the usages that are fine.
PHRASES = {
    r"shall": "will, must",
    r"anew": "again, from scratch",
    r"(?<!once )upon": "on",
    r"likewise": "also, too",
    r"(?<!it )comes? to(?! \w+ing)": "reaches, is",
    r"(?:is|are|was|were|be|been) told": "is reported, is logged",
    r"of ours": "our",
    r"there (?:is|are) none": "there isn't one",
    r"gets? a word": "is logged",
    r"(?:is|are) no(?= (?:names?|numbers?|files?|dates?|texts?|paths?)\b)": "isn't a",
    r"stands? in(?! for)": "is in",
    r"stood in(?! for)": "was in",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"for ever": "forever",
    r"in the place of": "instead of",
    r"whole of": "all of",
    r"what is more": "also",
    r"hence|thereby|thereof|whereof|hereby|herein": "so, by that",
    r"beforehand": "before, first",
}
STALE = {re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE): say for phrase, say in PHRASES.items()}
CLAUSE_HEADING = re.compile(r"#+ (?:what|when|where|who|why|whether|that|if|how)\b", re.IGNORECASE)
COMMENT = re.compile(r"\s*#")
TEXT_SUFFIXES = {"", ".cff", ".md", ".py", ".sh", ".smk", ".toml", ".yaml", ".yml"}
# The words of licences aren't our own, and these files list the phrases.
PASSED_OVER = {"tests/prose.py", "tests/test_prose.py"}


def problems_of(path: str, text: str) -> Iterator[str]:
    """Yield `path:line: problem` for each stale phrase, long line and clause heading of a file."""
    is_page = path.endswith(".md")
    in_code = False  # a fenced block of a page
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}:"
        if is_page and line.lstrip().startswith("```"):
            in_code = not in_code
        for phrase, instead in STALE.items():
            if match := phrase.search(line):
                yield f"{where} `{match.group()}`; write: {instead}"
        if is_page and not in_code and CLAUSE_HEADING.match(line):
            yield f"{where} a heading that is a clause; use a noun phrase or an imperative"
        is_prose = (
            not (in_code or line.startswith(("|", "    "))) if is_page else COMMENT.match(line)
        )
        if is_prose and len(line) > WIDTH and " " in line[WIDTH - 20 : WIDTH]:
            yield f"{where} {len(line)} columns of prose; wrap at {WIDTH}"


def tracked_files() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True)
    return [
        path
        for path in listing.stdout.splitlines()
        if Path(path).suffix in TEXT_SUFFIXES
        and Path(path).name != "LICENSE"
        and path not in PASSED_OVER
    ]


def main() -> int:
    problems = [
        problem
        for path in tracked_files()
        if Path(path).is_file()
        for problem in problems_of(path, Path(path).read_text(encoding="utf-8", errors="replace"))
    ]
    print("\n".join(problems) or "prose: no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
