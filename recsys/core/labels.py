"""What labels, and the scores of them, are called in rows on disk."""

from collections.abc import Sequence

LABEL = "__label__"
"""Column of encoded rows: the label, float32; before the name of another task's label: that one."""


def label_columns(labels: Sequence[str]) -> list[str]:
    """Columns of encoded rows that hold these labels of a schema, its main one first."""
    return [LABEL, *(LABEL + name for name in labels[1:])]


def score_columns(labels: Sequence[str]) -> list[tuple[str, str]]:
    """What logit and probability of each learned label are called beside one another; the main one's plainly."""
    return [("logit", "probability"), *((f"logit_{name}", f"probability_{name}") for name in labels[1:])]
