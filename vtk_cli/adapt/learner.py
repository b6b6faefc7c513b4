"""Everything that learns while a network is adapted, and the optimiser that goes on from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.adapt.domain_norm import SOURCE
from vtk_cli.adapt.loss_prediction import LossPredictor, predictor_for
from vtk_cli.adapt.method import Method, learning_rate
from vtk_cli.adapt.networks import Answer, DomainNetwork
from vtk_cli.engine.seeds import preserved_rng, sample_seed, seed_everything
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path
from vtk_cli.models.evaluation import normalised
from vtk_cli.models.weights import mismatch, read_plain

_STREAM = 0x4C504D
"""Sets the draws of the predictor's and discriminator's first weights apart from others of the same seed."""


class Discriminator(nn.Module):
    """Tells target from source by the embedding (TL-ADA): one linear layer.

    Args:
        width: of the embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (B,) of being of the target, of embeddings (B, Z)."""
        logits: Tensor = self.linear(embedding).squeeze(1)
        return logits

    def judged(self, embedding: Tensor) -> Tensor:
        """As `forward`, with a gradient for the embedding and none for the discriminator."""
        return F.linear(embedding, self.linear.weight.detach(), self.linear.bias.detach()).squeeze(1)


class Seen(NamedTuple):
    """What the parts make of B images.

    Args:
        answer: of the network.
        predicted: (B,), losses.
        told: (B,), logits of being of the target, with a gradient for the discriminator alone; None without one.
        passed: (B,), the same with a gradient for the network alone.
        source_told: (B',), of the images of the source, as `told`; None without such.
    """

    answer: Answer
    predicted: Tensor
    told: Tensor | None = None
    passed: Tensor | None = None
    source_told: Tensor | None = None


class Parts(nn.Module):
    """The modules that are adapted together.

    Args:
        network: F and H.
        predictor: P.
        discriminator: D; None without one.
    """

    def __init__(
        self, network: DomainNetwork, predictor: LossPredictor, discriminator: Discriminator | None = None
    ) -> None:
        super().__init__()
        self.network, self.predictor, self.discriminator = network, predictor, discriminator

    def forward(self, images: Tensor, domain: int, source: Tensor | None = None) -> Seen:
        """What they make of images, by one call: among several processes it is that of a wrapper.

        Args:
            images: (B, 3, S, S) uint8, of `domain`.
            domain: whose batch normalisation is used.
            source: (B', 3, S, S) uint8, of the source, for a discriminator.
        """
        network, discriminator = self.network, self.discriminator
        answer: Answer = network(normalised(images, network.pixels), domain)
        predicted: Tensor = self.predictor(answer)
        if discriminator is None:
            return Seen(answer, predicted)
        told, passed = discriminator(answer.embedding.detach()), discriminator.judged(answer.embedding)
        if source is None:
            return Seen(answer, predicted, told, passed)
        with torch.no_grad():
            embedding = network(normalised(source, network.pixels), SOURCE).embedding
        torch.clear_autocast_cache()  # it may hold weights without their gradient
        return Seen(answer, predicted, told, passed, discriminator(embedding))


@dataclass(frozen=True, eq=False)
class Learner:
    """What goes from stage to stage.

    Args:
        parts: the modules.
        optimizer: over all of them that learns; its groups' `initial_lr` is the rate at the start of a stage.
    """

    parts: Parts
    optimizer: torch.optim.Optimizer

    @property
    def network(self) -> DomainNetwork:
        """F and H."""
        return self.parts.network


def build_learner(network: DomainNetwork, method: Method, *, seed: int, device: torch.device) -> Learner:
    """A learner for a network that was trained on the source; its classifier is frozen, unless it is to learn.

    Args:
        network: moved to `device`.
        method: the settings.
        seed: of the predictor's and the discriminator's first weights; the global generators are left as they are.
        device: where.
    """
    with preserved_rng():
        seed_everything(sample_seed(seed, _STREAM, 0))
        predictor = predictor_for(network, method.lpm_inputs, method.lpm_width)
        discriminator = Discriminator(network.width) if method.adversarial > 0 else None
    if not method.train_head:
        network.freeze_head()
    parts = Parts(network, predictor, discriminator).to(device)
    groups: list[tuple[nn.Module | None, float]] = [
        (network, method.lr),
        (predictor, method.predictor_lr),
        (discriminator, method.discriminator_lr),
    ]
    return Learner(parts, sgd(groups, momentum=method.momentum, weight_decay=method.weight_decay))


def sgd(groups: list[tuple[nn.Module | None, float]], *, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum over modules, each with its learning rate; None is passed over.

    What has no gradient in a step is left alone, by momentum and decay too.
    """
    given: list[dict[str, Any]] = [
        {"params": [one for one in module.parameters() if one.requires_grad], "lr": lr, "initial_lr": lr}
        for module, lr in groups
        if module is not None
    ]
    return torch.optim.SGD(given, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay)


class PowerSchedule:
    """`method.learning_rate` over a stage, set before each of its updates.

    Args:
        optimizer: with `initial_lr` in its groups.
        steps: of the stage.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self._optimizer, self._steps = optimizer, steps
        self.step_update(0)

    def step(self, epoch: int) -> None:
        """Nothing changes with epochs."""

    def step_update(self, num_updates: int) -> None:
        """Set the rates of the update that follows `num_updates`."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(group["initial_lr"], num_updates / self._steps)

    def state_dict(self) -> dict[str, Any]:
        """How long the stage is; where it is, the optimiser's rates say."""
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over.

        Raises:
            ValueError: the state is of a stage of another length.
        """
        if state_dict["steps"] != self._steps:
            raise ValueError(f"a stage of {state_dict['steps']} updates, not of {self._steps}")


def save_learner(path: Path, learner: Learner, said: Mapping[str, Any] | None = None) -> None:
    """Write everything that the next round needs.

    Args:
        path: the file.
        learner: after a stage.
        said: what else the file says: numbers, text, and lists and dicts of them.

    Raises:
        JobError: the disk is full.
    """
    state = {
        "parts": {name: value.detach().cpu() for name, value in learner.parts.state_dict().items()},
        "optimizer": learner.optimizer.state_dict(),
        "said": dict(said or {}),
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_learner(path: Path, learner: Learner) -> dict[str, Any]:
    """Put a learner where `save_learner` found one; returns what the file says.

    Args:
        path: the file.
        learner: of the same network and method; changed.

    Raises:
        UserError: the file is missing or damaged, or of another network, number of classes or method.
    """
    content = read_plain(path)
    if not isinstance(content, dict) or not content.keys() >= {"parts", "optimizer", "said"}:
        raise UserError("holds no state of an adaptation", str(path), "name a file that `vtk adapt` wrote")
    if differs := mismatch(learner.parts, content["parts"]):
        raise UserError(differs, str(path), "use the network, classes and recipe that it was written with")
    learner.parts.load_state_dict(content["parts"])
    try:
        learner.optimizer.load_state_dict(content["optimizer"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"its optimiser is another ({error})", str(path), "use the recipe it was written with"
        ) from error
    said: dict[str, Any] = content["said"]
    return said
