"""Decide how a dataset is split, and check that each split gets text.

`pieces.py` assigns text to the splits.
"""

from collections.abc import Sequence
from pathlib import Path

from nanogpt.artifacts.records.datasets import Split
from nanogpt.artifacts.records.groups import CleaningPlan, GroupCounts, GroupTotals, Plan
from nanogpt.config.corpora import Dataset
from nanogpt.data.cleaning import Choice, explain
from nanogpt.errors import UserError, plural

MANY_DOCUMENTS = 100  # at this number, `split: auto` starts to split by document


def plan_split(counts: Sequence[GroupCounts], dataset: Dataset, choice: Choice | None) -> Plan:
    """Decide how to split a text of at least one document."""
    split: Split
    n_documents = sum(group.n_documents for group in counts)
    if choice:
        n_documents = choice.plan.totals.n_documents
    if dataset.train_bytes:
        split = "bytes"
    elif dataset.split == "auto":
        split = "document" if n_documents >= MANY_DOCUMENTS else "position"
    else:
        split = dataset.split
    if choice:
        lengths = list(choice.n_bytes if split == "bytes" else choice.plan.n_characters)
    elif split == "bytes":
        lengths = [sum(file.n_bytes for file in group.files) for group in counts]
    else:
        lengths = [group.n_characters for group in counts]
    total, n_end = sum(lengths), None
    if dataset.train_bytes:
        n_end = dataset.train_bytes + dataset.val_bytes if dataset.val_bytes else total
        if total < n_end or dataset.train_bytes >= total:
            in_total = _in_total(choice.plan if choice else None)
            raise UserError(
                f"{counts[0].files[0].path}: {plural(total, 'byte')} {in_total}, too few for the "
                "dataset's `train_bytes` and `val_bytes`; lower them or add text"
            )
    if split == "last_file":
        *others, last = [file for group in counts for file in group.files]
        if not last.n_documents or not any(file.n_documents for file in others):
            raise UserError(
                f"{last.path}: `split: last_file` validates on this file and trains on those "
                "before it, but one of the two has no text; add text, or change the dataset's "
                "`split:`"
            )
    plan = Plan(
        split=split,
        n_documents=n_documents,
        # nanoGPT cuts at the same place.
        n_train=dataset.train_bytes or int(total * (1 - dataset.val_ratio)),
        n_end=n_end,
        starts=tuple(sum(lengths[:group]) for group in range(len(counts))),
    )
    return plan.model_copy(update={"cleaning": choice.plan}) if choice else plan


def check_splits(groups: Sequence[GroupTotals], dataset: Dataset, plan: Plan, first: Path) -> None:
    """Raise UserError if a split of all groups is too short. first: a file, for the message."""
    splits = [group.train for group in groups], [group.val for group in groups]
    n_characters = sum(totals.n_characters for split in splits for totals in split)
    n_documents = sum(totals.n_documents for split in splits for totals in split)
    in_total = _in_total(plan.cleaning)
    setting, remedy = {
        "bytes": ("train_bytes", "`train_bytes:` and `val_bytes:`"),
        "last_file": ("split: last_file", "`split:`"),
    }.get(plan.split, (f"val_ratio: {dataset.val_ratio:g}", "`val_ratio:` or `split:`"))
    for name, split in zip(("train", "val"), splits, strict=True):
        n_tokens = sum(totals.n_tokens for totals in split)
        if n_tokens < 2 and plan.split == "document":
            raise UserError(
                f"{first}: {plural(n_documents, 'document')} {in_total}: none for the {name} "
                "split; add documents, or set the dataset's `split: position`"
            )
        if n_tokens < 2:
            raise UserError(
                f"{first}: {plural(n_characters, 'character')} {in_total}, too few for "
                f"`{setting}`: the {name} split would get {plural(n_tokens, 'token')}; add text, "
                f"or change the dataset's {remedy}"
            )


def _in_total(cleaning: CleaningPlan | None) -> str:
    """Words after an amount of text, with the reason if it's not all of the corpus."""
    if not cleaning or not any(cleaning.totals.removed.values()):
        return "in total"
    return f"left ({explain(cleaning)})"
