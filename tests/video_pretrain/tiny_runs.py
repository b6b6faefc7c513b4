"""Options of trainings that take a second or two, and how a command is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., tuple[int, str, str]]
CPU = ["--device", "cpu", "--workers", "0"]
SSL = ["--recipe", "digits-ssl", "--epochs", "3", "--batch-size", "8", *CPU]
SUPERVISED = [
    *("--recipe", "digits-supervised", "--objective", "supervised", "--epochs", "2", "--batch-size", "8"),
    *("--warmup", "0", *CPU),
]


def load(path: Path) -> Any:
    return json.loads(path.read_text())
