"""How much memory there is, for files that are read whole and may be larger than that."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.errors import UserError

_MEMINFO = Path("/proc/meminfo")
_GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""The limit of a container, and what it uses, in both versions of Linux' control groups."""


def free_memory() -> int | None:
    """Bytes that this process can take, of the machine's and of its container's; None where nothing says so."""
    left = [_number(limit) - _number(used) for limit, used in _GROUPS if _number(limit) and _number(used)]
    machine = _MEMINFO.read_text(encoding="ascii").splitlines() if _MEMINFO.is_file() else ()
    left += [int(line.split()[1]) * 1024 for line in machine if line.startswith("MemAvailable:")]
    return min(left, default=None)


def require_memory(path: Path, per_byte: int) -> None:
    """Refuse a file that does not fit into memory, before it is read.

    Args:
        path: the file; where there is none, whoever reads it says so.
        per_byte: bytes of memory that a byte of it takes, once read.

    Raises:
        UserError: there is less memory.
    """
    free = free_memory()
    needed = per_byte * path.stat().st_size if path.is_file() else 0
    if free is not None and needed > free:
        what = f"takes about {needed / 1e9:,.1f} GB of memory to read, and {free / 1e9:,.1f} GB are free"
        raise UserError(what, str(path), "split it, or read it on a machine with more memory")


def _number(file: Path) -> int:
    """What a file says; 0 where it says nothing, or `max`."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0
