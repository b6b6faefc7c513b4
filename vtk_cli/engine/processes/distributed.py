"""Several processes that train one model: started by torchrun, by Slurm's srun, by `--nproc`, or not at all.

torchrun --nproc-per-node 8 -m vtk_cli train ...        srun --ntasks 16 vtk train ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.processes.launchers import adopt_slurm_step, is_launched
from vtk_cli.engine.processes.meeting import meet
from vtk_cli.engine.processes.one_voice import lost_peers_named
from vtk_cli.engine.processes.parallel_options import Parallel
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.errors import UserError, VtkError
from vtk_cli.options import RunOptions

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""How long a process waits for what another does by itself.

Torch gives up after 10 minutes (NCCL) or 30 (gloo), and an evaluation on the first process alone may take longer. A
process that died ends the others through their launcher.
"""


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Args:
        rank: 0 ... size - 1; rank 0 is the one that writes.
        size: how many processes there are on all machines.
        local_rank: the number on this machine.
        device: where this process computes.
        patient: the group through which objects are exchanged, which waits as long as it takes; None: torch's own.
        parallel: what of a network's weights each process holds, see `Parallel`.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    patient: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)
    parallel: Parallel = "ddp"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def broadcast(self, value: T) -> T:
        """The value of rank 0 (anything that can be pickled) in every process."""
        if self.size == 1:
            return value
        carrier = [value]
        dist.broadcast_object_list(carrier, src=0, group=self.patient)
        return carrier[0]

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in order, in every process."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value, group=self.patient)
        return values

    def largest(self, *values: int) -> list[int]:
        """Each value's largest over all processes."""
        if self.size == 1:
            return list(values)
        gathered = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(gathered, dist.ReduceOp.MAX)
        largest: list[int] = gathered.tolist()
        return largest

    def on_main(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0 while the others wait; all get its result, or all raise the error it raised."""
        if self.size == 1:
            return action()
        outcome: tuple[T | None, VtkError | OSError | None] = (None, None)
        if self.is_main:
            try:
                outcome = (action(), None)
            except (VtkError, OSError) as error:
                outcome = (None, error)
        result, failure = self.broadcast(outcome)
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]  # no failure: it is what `action` returned


@contextmanager
def join_world(device: str, parallel: Parallel = "ddp") -> Iterator[World]:
    """Join the processes that torchrun or srun started along with this one; alone, the world is this process.

    Args:
        device: as `resolve_device` takes it. Among several processes `cuda` means one GPU each, by local rank.
        parallel: see `Parallel`.

    Raises:
        UserError: no such device, or fewer GPUs than processes on this machine.
        JobError: the processes did not meet.
    """
    if not is_launched():
        yield World(0, 1, 0, resolve_device(device), parallel=parallel)
        return
    kind = resolve_device(device).type
    adopt_slurm_step()
    resolved = _own_gpu() if kind == "cuda" else torch.device(kind)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", store=meet(), rank=rank, world_size=size)
    try:
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield World(rank, size, int(os.environ.get("LOCAL_RANK", "0")), resolved, patient, parallel)  # type: ignore[arg-type]  # no int: all are in it
    finally:
        dist.destroy_process_group()


@contextmanager
def shared_run_folder(world: World, opened: Callable[[], AbstractContextManager[RunFolder]]) -> Iterator[RunFolder]:
    """One run folder for all processes: rank 0 opens and owns it, the others follow.

    Args:
        world: this process among the others.
        opened: opens the folder, `lambda: RunFolder.open("train", ...)`; called on rank 0 alone.

    Raises:
        UserError: the folder cannot be had; raised in every process.
    """
    with ExitStack() as stack:
        owned: list[RunFolder] = []

        def own() -> Path:
            owned.append(stack.enter_context(opened()))
            return owned[0].path

        path = world.on_main(own)
        with lost_peers_named():
            yield owned[0] if owned else RunFolder.follow(path)


def shared_run(
    world: World, command: str, name: str, options: RunOptions, console: Console, *, may_change: Collection[str]
) -> AbstractContextManager[RunFolder]:
    """The run folder that the options of a job ask for, for all its processes.

    Args:
        world: this process among the others.
        command: with its verb, `detect train`.
        name: of the folder, where the options name none.
        options: of the job.
        console: of rank 0.
        may_change: options that may differ where a run in a folder that is named goes on.

    Raises:
        UserError: the folder cannot be had; raised in every process.
    """
    return shared_run_folder(
        world,
        lambda: RunFolder.open(
            command,
            name,
            config=options.as_config(),
            out=options.out,
            console=console,
            seed=options.seed,
            device=describe_device(world.device),
            may_change=may_change if options.out else (),
        ),
    )


def _own_gpu() -> torch.device:
    """The GPU of this process alone, which becomes the current one."""
    local_rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if count == 1 and "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ["LOCAL_RANK"] = "0"  # srun --gpus-per-task=1 shows every task its own GPU only, as number 0
        local_rank = 0
    if local_rank >= count:
        what = f"process {local_rank} on this machine has no GPU of its own: there are {count}"
        raise UserError(what, fix=f"start {count} processes a machine")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
