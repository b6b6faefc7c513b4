"""The face of `vtk doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app

if TYPE_CHECKING:
    from vtk_cli.doctor.findings import KernelChoice


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(SpeechOptions):
    """`vtk doctor` has no options of its own."""


def run(options: DoctorOptions, console: Console) -> ExitCode:  # noqa: ARG001 - it has none of its own
    """Show what this installation has and uses, and the command that brings what it lacks.

    Python, torch, CUDA, the driver and the GPUs; compiled kernels and compilers; readers of videos; Slurm; threads; the
    cache and free disk. For every operator of `vtk_kernels` it names the backend in use and why; the environment
    variable VTK_KERNELS (reference, cpu, triton or cuda) forces one.

    Exits with 1 when something that is there or was asked for cannot work; what is merely missing is none of that.
    """
    from vtk_cli.doctor.examination import examine

    found = examine()
    console.table("This machine", ("what", "found"), [(line.what, line.found) for line in found.lines])
    _show_kernels(found.kernels, console)
    if found.missing:
        rows = [(each.what, each.without, each.mend) for each in found.missing]
        console.table("Missing, and what brings it", ("what", "without it", "command"), rows)
    for problem in found.problems:
        console.text(f"problem: {problem}", style="bold red")
    console.text(_last_word(len(found.problems)))
    console.emit(found.as_json())
    return ExitCode.FAILED if found.problems else ExitCode.DONE


def _show_kernels(kernels: Sequence[KernelChoice], console: Console) -> None:
    """A row for all operators that have the same backend for the same reason."""
    operators: dict[tuple[str, str, str], list[str]] = {}
    for each in kernels:
        operators.setdefault((each.device, each.backend or "none", each.why), []).append(each.operator)
    rows = [(device, backend, why, ", ".join(names)) for (device, backend, why), names in operators.items()]
    console.table("Kernels", ("tensors on", "backend", "because", "operators"), rows)


def _last_word(problems: int) -> str:
    return f"{problems} problem{'s' * (problems > 1)}" if problems else "nothing is wrong"


app = new_app()
add_command(app, DoctorOptions, run, name="doctor", epilog="Examples:  vtk doctor   ·   vtk doctor --json")
