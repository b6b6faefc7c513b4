"""The work itself, a row a network: attack it once, and let every network answer the attacked images.

For N networks there are N attacks and N^2 evaluations, not N^2 attacks; what is in the store is not done again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtk_cli.engine.devices import autocast
from vtk_cli.engine.pieces.turns import in_turns
from vtk_cli.files import content_key
from vtk_cli.similarity.attack import adversarial, to_bytes
from vtk_cli.similarity.members import Member
from vtk_cli.similarity.networks import as_function
from vtk_cli.similarity.passes import CODE_VERSION, Comparison, Passes, in_batches
from vtk_cli.similarity.sat import TransferBits
from vtk_cli.similarity.store import Bits

_MASKED_WARNING = 0.01

Row = dict[str, Bits]
"""Target key -> (n,) bool: the target is wrong on the image attacked against the row's network."""


@dataclass
class Work:
    """How much was computed rather than found in the store."""

    attacks: int = 0
    evaluations: int = 0


@dataclass(frozen=True)
class Rows:
    """The rows of a comparison.

    Args:
        passes: runs networks, and holds the settings and the store.
        comparison: the networks, the images and their labels.
        work: counts what is computed.
    """

    passes: Passes
    comparison: Comparison
    work: Work = field(default_factory=Work)

    def row(self, source: int) -> Row:
        """Row `source`, computing what is missing of it.

        Raises:
            Busy: another process is at work on the row.
        """
        key, images, store = self.key(source), self.comparison.images, self.passes.store
        with store.working_on(key):
            row = store.row(key, len(images))
            missing = {member.key: member for member in self.comparison.members if member.key not in row}
            if missing:
                made, attacked = self.attacked_images(source)
                row |= self._score(source, made, attacked, missing)
                store.save_row(key, row)
            return row

    def finished(self, source: int) -> Row | None:
        """Row `source` from the store; None where it is not complete."""
        row = self.passes.store.row(self.key(source), len(self.comparison.images))
        return row if all(member.key in row for member in self.comparison.members) else None

    def all(self) -> list[Row]:
        """All rows, computing what is missing and what no other process is at work on.

        Raises:
            UserError: the share of `passes` makes nothing, and rows are missing.
        """
        members = self.comparison.members
        return in_turns(
            range(len(members)),
            found=self.finished,
            make=self.row,
            share=self.passes.share,
            check=self.passes.check,
            name=lambda source: members[source].label,
            what="rows",
        )

    def bits(self) -> TransferBits:
        """What all rows come to; see `all`."""
        members, rows = self.comparison.members, self.all()
        for source in range(len(members)):
            self._warn_of_masking(source)
        wrong = np.stack([np.stack([row[member.key] for member in members]) for row in rows])
        return TransferBits(self.comparison.names, self.comparison.correct, wrong, self.comparison.noisy_wrong)

    def key(self, source: int) -> str:
        """What row `source` is stored under: the network, its attack, and the images with their labels."""
        member, settings = self.comparison.members[source], self.passes.settings
        return content_key(
            {
                "version": CODE_VERSION,
                "network": member.key,
                "view": asdict(self.passes.view(member)),
                "attack": asdict(settings.attack),
                "precision": [settings.attack_precision, settings.precision],
                "images": self.comparison.images.fingerprint,
                "labels": self.comparison.labels.tolist(),
            }
        )

    def attacked_images(self, source: int) -> tuple[Tensor, NDArray[np.intp]]:
        """The images attacked against network `source`, from the store or made now.

        Only images that the network classifies correctly are attacked: no other is in any X_ij.

        Returns:
            (m, 3, H, W) uint8, and (m,) which of the n images they are.
        """
        attacked = np.flatnonzero(self.comparison.correct[source])
        settings, store, key = self.passes.settings, self.passes.store, self.key(source)
        stored = store.arrays("adversarial", key)
        if stored is not None:
            return torch.from_numpy(stored["images"]), attacked
        made, masked = self._attack(source, attacked)
        self.work.attacks += 1
        store.save_arrays("masked", key, {"masked": masked})
        room = settings.keep_images == "auto" and store.has_room(made.nbytes * len(self.comparison.members))
        if room or settings.keep_images == "yes":
            store.save_arrays("adversarial", key, {"images": made.numpy()})
        return made, attacked

    def attacked_examples(self, source: int, shown: NDArray[np.intp]) -> Tensor:
        """A few images attacked against network `source`: (m, 3, H, W) uint8.

        They are found in the store or made alone, so that a picture never costs the attack of a whole row.

        Args:
            source: position of the network.
            shown: (m,) which of the n images; the network classifies them correctly.
        """
        stored = self.passes.store.arrays("adversarial", self.key(source))
        if stored is None:
            return self._attack(source, shown)[0]
        attacked = np.flatnonzero(self.comparison.correct[source])
        return torch.from_numpy(stored["images"][np.searchsorted(attacked, shown)])

    def _attack(self, source: int, attacked: NDArray[np.intp]) -> tuple[Tensor, Bits]:
        """The chosen images (m,) attacked: (m, 3, H, W) uint8, and (m,) whether the loss had no gradient at all."""
        passes, images, member = self.passes, self.comparison.images, self.comparison.members[source]
        attack, device = passes.settings.attack, passes.device
        chosen = torch.from_numpy(attacked)
        originals = images.pixels(passes.view(member))[chosen]
        labels, numbers = self.comparison.labels[chosen], images.numbers[chosen]
        made, masked = torch.empty_like(originals), np.zeros(len(attacked), dtype=np.bool_)
        with (
            as_function(passes.pool.network(member)) as network,
            passes.console.progress(f"attacking {member.label}", len(attacked)) as progress,
        ):
            for batch in in_batches(len(attacked), passes.settings.batch_size):
                passes.check()
                pixels = originals[batch].to(device).float() / 255
                with autocast(device, passes.settings.attack_precision):
                    result, flat = adversarial(network, pixels, labels[batch].to(device), attack, numbers[batch])
                made[batch] = to_bytes(result.cpu(), originals[batch], attack.eps)
                masked[batch] = flat.cpu().numpy()
                progress.advance(len(pixels))
        return made, masked

    def _warn_of_masking(self, source: int) -> None:
        stored = self.passes.store.arrays("masked", self.key(source))
        masked = stored["masked"] if stored is not None else np.zeros(0, dtype=np.bool_)
        if masked.sum() > _MASKED_WARNING * len(masked):
            self.passes.console.warn(
                f"{self.comparison.names[source]}: the loss has no gradient on {masked.sum()} of {len(masked)} images"
                " (gradient masking); try --attack pgd-margin"
            )

    def _score(self, source: int, made: Tensor, attacked: NDArray[np.intp], targets: dict[str, Member]) -> Row:
        comparison = self.comparison
        labels = comparison.labels.numpy()[attacked]
        row: Row = {}
        description = f"scoring images made for {comparison.members[source].label}"
        with self.passes.console.progress(description, len(targets)) as progress:
            for key, member in targets.items():
                answers = self.passes.logits(member, made)
                row[key] = np.zeros(len(comparison.images), dtype=np.bool_)
                row[key][attacked] = answers.argmax(axis=1) != labels
                self.work.evaluations += 1
                progress.advance()
        return row
