"""`vtk bench kernels`: what `vtk_kernels.bench` measured, as rows of the family.

The cases and their timing live with the kernels, which know nothing of this program; here they get its words.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.reports.evidence import BenchRow
from vtk_kernels.bench import CASES, Measurement
from vtk_kernels.bench import measure as measurements


@dataclass(frozen=True, kw_only=True)
class KernelRow(BenchRow):
    """A kernel against the usual way and against copying as many bytes.

    Args:
        shape, dtype, backend: what was measured.
        bytes: read and written at least.
        copy: seconds that `clone` takes for as many.
        share_target: the share of the speed of copying that was aimed at; None where none was.
    """

    shape: str
    dtype: str
    backend: str
    bytes: int
    copy: float
    share_target: float | None

    @property
    def share(self) -> float:
        """Bytes a second over those of copying."""
        return self.copy / self.ours

    @property
    def holds(self) -> bool:
        """Whether both targets were met."""
        return super().holds and (self.share_target is None or self.share >= self.share_target)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {**super().as_json(), "share_of_copy": self.share}


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[KernelRow]:
    """Time every operator on `device`, the usual way beside it; under two minutes on two cores.

    Raises:
        UserError: no kernel is written for `device`.
    """
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"no kernel is written for {device.type}", "--device", "choose cpu or cuda")
    rows = []
    with console.progress("kernels", len(CASES)) as progress:
        for measurement in measurements(device, smallest=smallest):
            rows.append(_row(measurement))
            progress.advance(status=measurement.case.name)
    return rows


def _row(measured: Measurement) -> KernelRow:
    case, dtype = measured.case, str(measured.dtype).removeprefix("torch.")
    aimed = "" if measured.aim.share is None else f" (target {measured.aim.share:.0%})"
    speed = measured.bytes / measured.ours / 1e9
    return KernelRow(
        name=f"{case.name}, {measured.shape}, {dtype}, {measured.backend}",
        ours=measured.ours,
        theirs=measured.theirs,
        peer=case.peer,
        target=measured.aim.ratio,
        device=measured.device,
        versions={name: version(name) for name in ("torch", "triton") if find_spec(name)},
        note=f"{measured.bytes / 1e6:.1f} MB at {speed:.1f} GB/s, {measured.share:.0%} of the speed of clone{aimed}",
        shape=measured.shape,
        dtype=dtype,
        backend=measured.backend,
        bytes=measured.bytes,
        copy=measured.copy,
        share_target=measured.aim.share,
    )
