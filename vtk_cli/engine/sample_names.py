"""What the samples of a batch are called where they have to be named: by their files, where they have some."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 8
"""So many samples are named in a line; the log has all."""


def name_of(data: object, index: int) -> str:
    """What `data`, a data set or batches of one, calls a sample.

    Args:
        data: may have a method `name_of(index)`, which says it: a file's path, `digits/000123`.
        index: as batches have it.

    Returns:
        That name; `sample 3` where the data have none.
    """
    naming = getattr(data, "name_of", None)
    return f"sample {index}" if naming is None else str(naming(index))


def in_a_line(names: Sequence[str]) -> str:
    """`a.png, b.png and 62 more`."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
