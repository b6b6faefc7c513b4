"""What a command that ran in this process left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """Its exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        """The one object that `--json` prints."""
        assert self.code == 0, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def complaint(self) -> str:
        """The one line of a user's mistake; that nothing else went wrong is asserted."""
        return self._line(2)

    @property
    def failure(self) -> str:
        """The one line of a job that failed; that nothing else went wrong is asserted."""
        return self._line(1)

    def _line(self, code: int) -> str:
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert (self.code, len(lines)) == (code, 1), self.err
        assert "Traceback" not in self.err
        assert not self.out
        return lines[0]
