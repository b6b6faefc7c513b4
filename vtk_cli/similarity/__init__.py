"""How alike networks are, by how well adversarial images of one fool the other (SAT, arXiv 2210.11407).

As a library:

    from vtk_cli.similarity import Attack, sat_matrix, transfer_bits

    bits = transfer_bits({"a": a, "b": b}, pixels, labels, Attack(eps=8 / 255, steps=20, step_size=2 / 255))
    sat_matrix(bits).score
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtk_cli.similarity.attack import Attack, adversarial
    from vtk_cli.similarity.networks import PixelModel
    from vtk_cli.similarity.sat import SatMatrix, TransferBits, bootstrap_interval, controls, sat_matrix
    from vtk_cli.similarity.transfer import transfer_bits

__all__ = [
    "Attack",
    "PixelModel",
    "SatMatrix",
    "TransferBits",
    "adversarial",
    "bootstrap_interval",
    "controls",
    "sat_matrix",
    "transfer_bits",
]

_HOMES = {
    "attack": ("Attack", "adversarial"),
    "networks": ("PixelModel",),
    "sat": ("SatMatrix", "TransferBits", "bootstrap_interval", "controls", "sat_matrix"),
    "transfer": ("transfer_bits",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command's help does not wait for torch."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
