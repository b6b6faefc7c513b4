"""A re-training shared by two processes. Run as a script by both: `retrain_ranks.py FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import join_world, shared_run
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.search.retrain_options import RetrainOptions
from vtk_cli.search.retrain_recipes import RETRAIN_RECIPES
from vtk_cli.search.retraining import retrain

DEAD_END = (3, 0, 0, 2, 0, 0)
"""The edge from node 0 to node 1, which leads nowhere, has weights without a gradient."""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    options = RetrainOptions(
        **{
            **RETRAIN_RECIPES["digits"],
            "device": "cpu",
            "out": folder / "run",
            "epochs": 2,
            "ema_decay": 0.9,
            "size": 16,
        }
    )
    space, console = space_named("nasbench201"), Console(quiet=True)
    with join_world("cpu") as world:
        with shared_run(world, "search retrain", "x", options, console, may_change=()) as run:
            shape = space.shape("stand-alone", 10, width=4, cells=1)
            found = retrain(options, space, DEAD_END, shape, world=world, console=console, run=run)
        state = found.network.state_dict()
        sums = {name: float(value.double().sum()) for name, value in state.items()}
        report = {"sums": sums, "images": found.evaluation.n, "summary": found.summary()}
        (folder / f"{world.rank}.json").write_text(json.dumps(report), encoding="utf-8")
