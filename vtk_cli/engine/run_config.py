"""The configuration of a run as its `config.toml` holds it, and what differs between two of them.

The first line says which command it configures; `vtk <command> --config config.toml` repeats the run. Nothing here
imports torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import tomli_w

from vtk_cli.options import RUN_CONFIG


@dataclass(frozen=True)
class RunConfig:
    """Which command runs, with which options.

    Args:
        command: the subcommand, `train`.
        options: what TOML can hold: tables, lists, text, numbers, truth values.
    """

    command: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, command: str, options: Mapping[str, object]) -> RunConfig:
        """From options as a program holds them: None is left out, paths and enumerations become their text."""
        return cls(command, tomllib.loads(tomli_w.dumps(_plain(options))))

    @classmethod
    def read(cls, folder: Path) -> RunConfig | None:
        """From the `config.toml` of a run folder; None when there is none or it is not one that `text` wrote."""
        try:
            text = (folder / RUN_CONFIG).read_text(encoding="utf-8")
            options = tomllib.loads(text)
        except (OSError, ValueError, RecursionError):
            return None
        command = options.pop("command", None)
        return cls(command, options) if isinstance(command, str) and text.startswith("command = ") else None

    def text(self) -> str:
        """The content of `config.toml`."""
        return tomli_w.dumps({"command": self.command, **self.options})

    def changes_from(self, earlier: RunConfig) -> dict[str, tuple[str, str]]:
        """The options that differ, `attack.steps` for one in a table, each with its old and its new value as text."""
        old, new = _flat(earlier.options), _flat(self.options)
        keys = [*new, *(key for key in old if key not in new)]
        shown = {key: (_shown(old.get(key)), _shown(new.get(key))) for key in keys}
        return {key: (before, after) for key, (before, after) in shown.items() if before != after}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _shown(value: object) -> str:
    return "unset" if value is None else json.dumps(value, default=str)
