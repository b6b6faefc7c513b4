"""Two processes, of which one has more to do than torch waits for. Run as a script by both."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from vtk_cli.engine.processes.distributed import join_world

WAIT = 2.0


def main() -> None:
    """Join with torch's patience cut to `WAIT` seconds; the first process alone works for longer."""
    init = dist.init_process_group

    def impatient(*arguments: Any, **options: Any) -> None:
        init(*arguments, **{**options, "timeout": timedelta(seconds=WAIT)})

    dist.init_process_group = impatient

    def work() -> str:
        time.sleep(2 * WAIT)
        return "done"

    with join_world("cpu") as world:
        Path(sys.argv[1], f"late-{world.rank}").write_text(world.on_main(work))


if __name__ == "__main__":
    main()
