"""The face of `vtk doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode
from vtk_cli.options import SpeechOptions, add_command, new_app


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(SpeechOptions):
    """`vtk doctor` has no options of its own."""


def run(options: DoctorOptions, console: Console) -> ExitCode:  # noqa: ARG001 - it has none of its own
    """Show what this installation has and uses: Python, torch, GPUs, compiled kernels, threads, cache.

    For every operator of `vtk_kernels` it names the backend in use and why; the environment variable VTK_KERNELS
    (reference, cpu, triton or cuda) forces one. Exits with 1 when something that is there or was asked for cannot work.
    """
    from vtk_cli.doctor.examination import examine

    found = examine()
    console.table("This machine", ("what", "found"), [(line.what, line.found) for line in found.lines])
    console.table(
        "Kernels",
        ("operator", "tensors on", "backend", "because"),
        [(each.operator, each.device, each.backend or "none", each.why) for each in found.kernels],
    )
    for problem in found.problems:
        console.text(f"problem: {problem}", style="bold red")
    console.text("nothing is wrong" if not found.problems else f"{len(found.problems)} problems")
    console.emit(found.as_json())
    return ExitCode.FAILED if found.problems else ExitCode.DONE


app = new_app()
add_command(app, DoctorOptions, run, name="doctor", epilog="Examples:  vtk doctor   ·   vtk doctor --json")
