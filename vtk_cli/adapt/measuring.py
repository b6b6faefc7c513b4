"""What a network makes of a domain, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from scipy.stats import spearmanr
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.adapt.domain_norm import TARGET
from vtk_cli.adapt.images import DomainImages
from vtk_cli.adapt.learner import Parts, Seen
from vtk_cli.adapt.networks import DomainNetwork
from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.adapt.sharing import trained_module
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.shared_work import in_every_process
from vtk_cli.models.evaluation import normalised


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """Of N images, in the order of their rows; on the CPU, in fp32.

    Args:
        logits: (N, C).
        embeddings: (N, Z).
        predicted_losses: (N,); zeros without a loss predictor.
        target_logits: (N,), of being of the target; None without a discriminator.
    """

    logits: Tensor
    embeddings: Tensor
    predicted_losses: Tensor
    target_logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)


@torch.no_grad()
def network_outputs(
    network: DomainNetwork,
    images: DomainImages,
    rows: Sequence[int],
    *,
    domain: int = TARGET,
    batch_size: int,
    precision: Precision = "fp32",
    predictor: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    world: World | None = None,
) -> NetworkOutputs:
    """Outputs in eval mode for images as they are measured; every module is afterwards in the mode it was in.

    Several processes take the batches in turn, each of them the very batch of one process, and all get everything.

    Args:
        network: on its device.
        images: of the domain.
        rows: which of them.
        domain: whose batch normalisation is used.
        batch_size: images at a time.
        precision: of the forward pass.
        predictor, discriminator: of the embedding, where they are wanted.
        world: this process among the others; None: it is alone.
    """
    device = next(network.parameters()).device

    def look(batch: Tensor) -> tuple[Tensor, ...]:
        answer = network(normalised(batch, network.pixels), domain)
        predicted = answer.logits.new_zeros(len(batch)) if predictor is None else predictor(answer)
        judged = () if discriminator is None else (discriminator(answer.embedding),)
        return answer.logits, answer.embedding, predicted, *judged

    modules = [each for each in (network, predictor, discriminator) if each is not None]
    with _evaluating(modules):
        found = _looked(look, images, rows, batch_size=batch_size, device=device, precision=precision, world=world)
    return _joined(found, network, is_judged=discriminator is not None)


@torch.no_grad()
def learning_outputs(
    model: nn.Module,
    images: DomainImages,
    rows: Sequence[int],
    *,
    batch_size: int,
    precision: Precision,
    world: World | None,
) -> NetworkOutputs:
    """As `network_outputs` under the target's normalisation, of `Parts` in the middle of their training.

    Args:
        model: as a loss is given it, perhaps wrapped; only called, for parts of it may lie in other processes.
        images, rows, batch_size, precision, world: as there.
    """
    network = cast("Parts", getattr(trained_module(model), "parts", trained_module(model))).network
    if world is not None and world.size > 1:
        distribute_bn(trained_module(model), world.size, reduce=False)  # each has normalised batches of its own

    def look(batch: Tensor) -> tuple[Tensor, ...]:
        seen: Seen = model(batch, TARGET)
        return seen.answer.logits, seen.answer.embedding, seen.predicted

    device = next(network.parameters()).device
    with _evaluating([model]):
        found = _looked(look, images, rows, batch_size=batch_size, device=device, precision=precision, world=world)
    return _joined(found, network, is_judged=False)


Look = Callable[[Tensor], tuple[Tensor, ...]]
"""What is kept of a batch (B, 3, S, S) uint8 on the device: tensors with B rows."""


def _looked(
    look: Look,
    images: DomainImages,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    world: World | None,
) -> list[tuple[Tensor, ...]]:
    """What `look` makes of all rows, batch by batch, on the CPU; every process looks equally often."""
    batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    own, most = batches[rank::size], -(-len(batches) // size)
    wanted = [*own, *batches[: most - len(own)]]  # these again, for nothing

    def mine() -> list[tuple[Tensor, ...]]:
        found: list[tuple[Tensor, ...]] = []
        for batch in images.plain([row for part in wanted for row in part], batch_size=batch_size):
            with autocast(device, precision):
                kept = look(batch.to(device, non_blocking=True))
            found.append(tuple(each.float().cpu() for each in kept))
        torch.clear_autocast_cache()  # it may hold weights without their gradient
        return found[: len(own)]

    if world is None or size == 1:
        return mine()
    parts = in_every_process(world, mine)
    return [parts[number % size][number // size] for number in range(len(batches))]


def _joined(found: list[tuple[Tensor, ...]], network: DomainNetwork, *, is_judged: bool) -> NetworkOutputs:
    if not found:
        found = [(torch.zeros(0, network.classes), torch.zeros(0, network.width), torch.zeros(0), torch.zeros(0))]
    parts = [torch.cat(kind) for kind in zip(*found, strict=True)]
    return NetworkOutputs(parts[0], parts[1], parts[2], parts[3] if is_judged else None)


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, `modules` are in eval mode; afterwards in the mode that each was in."""
    before = [each.training for each in modules]
    try:
        for each in modules:
            each.eval()
        yield
    finally:
        for each, training in zip(modules, before, strict=True):
            each.train(training)


def pool_outputs(
    parts: Parts,
    images: DomainImages,
    rows: Sequence[int],
    ids: Sequence[str],
    *,
    batch_size: int,
    precision: Precision = "fp32",
    world: World | None = None,
) -> PoolOutputs:
    """What queries choose by: outputs in eval mode under the target's batch normalisation.

    Args:
        parts: of a learner.
        images: of the target.
        rows: which of them.
        ids: their sample ids, in the same order.
        batch_size: images at a time.
        precision: of the forward pass.
        world: this process among the others; None: it is alone.
    """
    found = network_outputs(
        parts.network,
        images,
        rows,
        batch_size=batch_size,
        precision=precision,
        predictor=parts.predictor,
        discriminator=parts.discriminator,
        world=world,
    )
    weight = cast("Tensor", parts.network.head.weight).detach().float().cpu()
    return PoolOutputs(tuple(ids), found.logits, found.embeddings, found.predicted_losses, found.target_logits, weight)


def accuracy(logits: Tensor, labels: Tensor) -> float | None:
    """Percent of the images (N, C) whose largest logit is that of their label (N,); None of no images."""
    return float((logits.argmax(dim=1) == labels).double().mean() * 100) if len(labels) else None


def mean_class_accuracy(logits: Tensor, labels: Tensor) -> float | None:
    """The mean over the classes that occur of their accuracies, in percent; None of no images."""
    if not len(labels):
        return None
    correct = (logits.argmax(dim=1) == labels).double()
    return float(torch.stack([correct[labels == label].mean() for label in labels.unique()]).mean() * 100)


def loss_rank_correlation(predicted: Tensor, logits: Tensor, labels: Tensor) -> float | None:
    """Spearman's correlation of predicted and true losses (N,); None where one of them is constant or N below 3."""
    true = F.cross_entropy(logits, labels, reduction="none")
    if len(labels) < 3 or predicted.unique().numel() == 1 or true.unique().numel() == 1:
        return None
    return float(spearmanr(predicted.numpy(), true.numpy()).statistic)


def doubted_labels(logits: Tensor, labels: Tensor, count: int) -> list[int]:
    """The images (of N) whose label the network finds least likely, the least likely first: errors are among them.

    Args:
        logits: (N, C), of labelled images.
        labels: (N,) int64.
        count: how many to name, at most; those that the network itself would label so are left out.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    order = losses.argsort(descending=True, stable=True)
    doubted: list[int] = order[(logits.argmax(dim=1) != labels)[order]][:count].tolist()
    return doubted


@dataclass(frozen=True)
class Measured:
    """Metrics of a round, with labels that the method never saw; accuracies in percent, None of no images.

    Args:
        acc_pool_unlabelled: of the images without label, the headline.
        acc_pool_all: of the whole pool, those that were asked for among it, as most papers report it.
        acc_test: of images that are not in the pool.
        class_acc_pool_unlabelled, class_acc_pool_all, class_acc_test: means over classes.
        spearman: of predicted with true losses, of the images without label.
        pseudo_label_acc: of the last pseudo labels.
    """

    acc_pool_unlabelled: float | None
    acc_pool_all: float | None
    acc_test: float | None
    class_acc_pool_unlabelled: float | None
    class_acc_pool_all: float | None
    class_acc_test: float | None
    spearman: float | None
    pseudo_label_acc: float | None


def measure(
    pool: NetworkOutputs,
    labels: Tensor,
    unlabelled: Tensor,
    *,
    test: tuple[NetworkOutputs, Tensor] | None = None,
    pseudo_labels: Tensor | None = None,
) -> Measured:
    """Measure a network on a pool whose labels are known, for a report only.

    Args:
        pool: outputs of every image of the pool.
        labels: (N,) int64, of the same.
        unlabelled: (N,) bool, which of them have not been asked for.
        test: outputs and labels of images that are not in the pool.
        pseudo_labels: of the unlabelled images, in their order, as the stage began with them.
    """
    rest, truth = pool.logits[unlabelled], labels[unlabelled]
    on_pseudo = None
    if pseudo_labels is not None and len(pseudo_labels) and len(pseudo_labels) == len(truth):
        on_pseudo = float((pseudo_labels.cpu() == truth).double().mean() * 100)
    return Measured(
        acc_pool_unlabelled=accuracy(rest, truth),
        acc_pool_all=accuracy(pool.logits, labels),
        acc_test=None if test is None else accuracy(test[0].logits, test[1]),
        class_acc_pool_unlabelled=mean_class_accuracy(rest, truth),
        class_acc_pool_all=mean_class_accuracy(pool.logits, labels),
        class_acc_test=None if test is None else mean_class_accuracy(test[0].logits, test[1]),
        spearman=loss_rank_correlation(pool.predicted_losses[unlabelled], rest, truth),
        pseudo_label_acc=on_pseudo,
    )


@dataclass(frozen=True)
class Unsupervised:
    """What can be said of the images without label when nobody knows their labels.

    Args:
        mean_entropy: of the predictions, in nats, 0 to log C.
        histogram: how many images each class was predicted for.
        agreement: share of pseudo labels that stayed from one making to the next; None without two.
    """

    mean_entropy: float | None
    histogram: tuple[int, ...]
    agreement: float | None


def measure_unsupervised(outputs: NetworkOutputs, agreement: float | None = None) -> Unsupervised:
    """Measure a network on images without labels."""
    classes = outputs.logits.shape[1]
    histogram = torch.bincount(outputs.logits.argmax(dim=1), minlength=classes).tolist()
    if not len(outputs):
        return Unsupervised(None, tuple(histogram), agreement)
    chances = outputs.logits.double().log_softmax(dim=1)
    entropy = float(-(chances.exp() * chances).sum(dim=1).mean())
    return Unsupervised(entropy, tuple(histogram), agreement)
