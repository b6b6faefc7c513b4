"""The network of a pair of DARTS cells that is trained from scratch, for CIFAR or ImageNet (arXiv 1806.09055).

State names are those of the released checkpoints of arXiv 2305.08611, without their prefix `module.`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.darts import IMAGENET, STEM_MULTIPLIER, CellPlan, cell_plans, reductions
from vtk_cli.models.spaces.darts_operations import operation_module, preprocessing, small_image_stem
from vtk_cli.models.spaces.genotypes import INNER, LENGTH, active_edges
from vtk_cli.models.spaces.space import Shape
from vtk_cli.models.spaces.stand_alone import FeatureMap, StandAlone


class Cell(nn.Module):
    """A cell with the eight edges that its genes name.

    Args:
        plan: where it stands.
        genes: 14 of them.
        drop_path: probability with which the output of an edge is dropped in training, for each image; an identity's
            never is.
    """

    def __init__(self, plan: CellPlan, genes: Sequence[int], drop_path: float) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = preprocessing(plan)
        edges = [edge for edge, _ in active_edges(genes)]
        self._sources = [edge.source for edge in edges]
        self._ops = nn.ModuleList(
            operation_module(operation, plan.width, 2 if plan.reduces and edge.source < 2 else 1)
            for edge, operation in active_edges(genes)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """The inner nodes of a cell side by side, from the outputs of the two cells before it."""
        nodes = [self.preprocess0(older), self.preprocess1(newer)]
        for node in range(len(INNER)):
            nodes.append(self._edge(2 * node, nodes) + self._edge(2 * node + 1, nodes))
        return torch.cat(nodes[2:], dim=1)

    def _edge(self, number: int, nodes: Sequence[Tensor]) -> Tensor:
        operation, source = self._ops[number], nodes[self._sources[number]]
        out: Tensor = source if isinstance(operation, nn.Identity) else self.drop_path(operation(source))
        return out


class AuxiliaryHead(nn.Module):
    """A second classifier on the output of the later reduction cell, in training only (arXiv 1806.09055).

    Args:
        channels: of that output.
        side: of that output, in cells.
        classes: of the images.
        imagenet: for maps of 14 x 14 and less, pooled with stride 2 and without a last batch normalisation, as in the
            published networks; else the one for CIFAR.

    Raises:
        UserError: the map is too small.
    """

    def __init__(self, channels: int, side: int, classes: int, *, imagenet: bool) -> None:
        super().__init__()
        stride = 2 if imagenet else 3
        if side < 5 + stride:
            what = f"the second classifier needs a map of at least {5 + stride} x {5 + stride}, this one has {side}"
            raise UserError(what, fix="leave it out or give a higher resolution")
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([] if imagenet else [nn.BatchNorm2d(768)]),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) from a map; one larger than the published ones is averaged at the end."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


class DartsNetwork(StandAlone):
    """Stem, cells, average pooling, linear classifier.

    Args:
        genes: 28 valid ones.
        shape: of the form `cifar` or `imagenet`.
        drop_path: see `Cell`; `set_drop_path` changes it, as training schedules do from epoch to epoch.
        auxiliary: whether it has the second classifier.

    Raises:
        UserError: its maps are too small for a second classifier.
    """

    def __init__(self, genes: Sequence[int], shape: Shape, *, drop_path: float = 0.0, auxiliary: bool = False) -> None:
        plans, cells = cell_plans(shape), shape.cells
        first = 8 if shape.form == IMAGENET else 1
        self._taps = (*(at - 1 for at in reductions(cells)), cells - 1)
        super().__init__(tuple(FeatureMap(plans[at].outputs, first * 2**n) for n, at in enumerate(self._taps)))
        if shape.form == IMAGENET:
            self.stem0, self.stem1 = _imagenet_stems(shape.width)
        else:
            self.stem = small_image_stem(STEM_MULTIPLIER * (shape.width))
        self.cells = nn.ModuleList(
            Cell(plan, genes[LENGTH:] if plan.reduces else genes[:LENGTH], drop_path) for plan in plans
        )
        self._auxiliary_at = reductions(cells)[1]
        if auxiliary:
            reducing = plans[self._auxiliary_at]
            self.auxiliary_head = AuxiliaryHead(
                reducing.outputs, reducing.side_of_nodes, shape.classes, imagenet=shape.form == IMAGENET
            )
        self.classifier = nn.Linear(plans[-1].outputs, shape.classes)

    def set_drop_path(self, probability: float) -> None:
        """Drop the outputs of edges with this probability in training from now on."""
        for cell in self.cells:
            assert isinstance(cell, Cell)  # noqa: S101 - as built above
            cell.drop_path.drop_prob = probability

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The outputs of the cells before the reductions and of the last: 4C, 8C and 16C channels of the width C."""
        outputs = self._outputs(images)
        return [outputs[at] for at in self._taps]

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from the output of the last cell."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, classes); in training, with a second classifier, that one's logits as well."""
        outputs = self._outputs(images)
        logits = self.classify(outputs[self._taps[-1]])
        if self.training and hasattr(self, "auxiliary_head"):
            return logits, self.auxiliary_head(outputs[self._auxiliary_at])
        return logits

    def _outputs(self, images: Tensor) -> dict[int, Tensor]:
        """The outputs of the cells that anything outside the stack looks at, by number."""
        if hasattr(self, "stem"):
            older = newer = self.stem(images)
        else:
            older = self.stem0(images)
            newer = self.stem1(older)
        outputs: dict[int, Tensor] = {}
        for number, cell in enumerate(self.cells):
            older, newer = newer, cell(older, newer)
            if number in self._taps or number == self._auxiliary_at:
                outputs[number] = newer
        return outputs


def _imagenet_stems(width: int) -> tuple[nn.Sequential, nn.Sequential]:
    """From 224 x 224 to 56 x 56, and from there to 28 x 28."""
    quarter = nn.Sequential(
        nn.Conv2d(3, width // 2, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(),
        nn.Conv2d(width // 2, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
    )
    eighth = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width))
    return quarter, eighth
