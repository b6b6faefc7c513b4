"""ViDT and ViDT+ from images to predictions (arXiv 2110.03921, Figure 4; arXiv 2204.07962)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.detect.backbone import RamSwin
from vtk_cli.detect.configurations import BackboneConfig, DetectorConfig
from vtk_cli.detect.decoder import DecoderLayer, memory_of
from vtk_cli.detect.epff import LevelProjection, PyramidFusion, projection
from vtk_cli.detect.feature_backbone import FeatureBackbone
from vtk_cli.detect.heads import BoxMlp, Heads, TokenHead, wide
from vtk_cli.detect.linear import linear_in_training
from vtk_cli.detect.predictions import DistillationTokens, LevelOutput, Outputs, PaddedImages
from vtk_cli.errors import UserError


@dataclass(frozen=True)
class QueryConstants:
    """What does not depend on the image.

    Args:
        tokens: (1, Q, C), the DET tokens as they enter the first stage with cross-attention; None: not computed yet.
        positions: (1, Q, D) of the queries in the decoder; width 0 without a neck.
        references: (1, Q, 2), where the decoder looks first, in [0, 1] of the unpadded image; width 0 without a neck.
    """

    tokens: Tensor | None
    positions: Tensor
    references: Tensor


class ViDT(nn.Module):
    """A backbone with DET tokens, a neck and a deformable decoder.

    Args:
        config: with a neck.
        recompute: the activations of the backbone's blocks are computed anew in the backward pass, to save memory.
    """

    def __init__(self, config: DetectorConfig, *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config, recompute=recompute)
        widths = self.backbone.map_widths
        self.neck = (PyramidFusion if config.neck == "epff" else LevelProjection)(widths, config.dim, config.groups)
        self.tgt_proj = projection(self.backbone.token_width, config.dim, config.groups)
        self.query_pos_proj = projection(config.dim, config.dim, config.groups)
        self.reference_points = nn.Linear(config.dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        if config.refine and not config.aux:  # its only gradient is that of the body's boxes
            self.reference_points.requires_grad_(requires_grad=False)
        self.decoder = nn.ModuleList(
            DecoderLayer(
                config.dim,
                config.decoder_heads,
                levels=len(widths),
                points=config.points,
                ffn=config.ffn,
                dropout=config.dropout,
            )
            for _ in range(config.decoder_layers)
        )
        self.heads = Heads(config)
        self.token_head = TokenHead(config.dim, config.token_channels) if config.token_labels else None

    def forward(
        self, batch: PaddedImages, *, for_losses: bool | None = None, constants: QueryConstants | None = None
    ) -> Outputs:
        """Predictions for a batch.

        Args:
            batch: the images.
            for_losses: everything that losses take: all levels (with `config.aux`), token logits, tokens to distil.
                Else the final level alone. None: in training.
            constants: what `constants` gave, not to compute it again.
        """
        known = self._queries() if constants is None else constants
        features = self.backbone(batch.images, batch.mask, known.tokens)
        memory = memory_of(self.neck(features.maps), batch.mask)
        everyone = (batch.images.shape[0], -1, -1)
        body = _projected(self.tgt_proj, features.tokens).expand(everyone)
        positions, first = known.positions.expand(everyone), known.references.expand(everyone)

        boxes = self.heads.boxes(0, body, first)
        tokens, predicted = [body], [boxes]
        for level, layer in enumerate(self.decoder, start=1):
            references = boxes.detach() if self.config.refine else first
            tokens.append(layer(tokens[-1], positions, references, memory))
            boxes = self.heads.boxes(level, tokens[-1], references)
            predicted.append(boxes)

        learning = self.training if for_losses is None else for_losses
        wanted = range(len(tokens)) if learning and self.config.aux else [len(tokens) - 1]
        levels = tuple(self.heads.level(level, tokens[level], predicted[level]) for level in wanted)
        if not learning:
            return Outputs(levels)
        distil = DistillationTokens(memory.levels(memory.cells), body, torch.stack(tokens))
        return Outputs(levels, self.token_head(memory) if self.token_head is not None else None, distil)

    def constants(self) -> QueryConstants:
        """What does not depend on the image, in eval mode; computed with the gradients that are asked for."""
        return replace(self._queries(), tokens=self.backbone.constant_tokens())

    def _queries(self) -> QueryConstants:
        positions = _projected(self.query_pos_proj, self.backbone.det_pos_embed)
        return QueryConstants(None, positions, wide(self.reference_points(positions)).sigmoid())


class NeckFreeViDT(nn.Module):
    """A Swin with DET tokens and heads on them, trained with DETR's losses: softmax over K classes and "no object"."""

    def __init__(self, config: DetectorConfig, *, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = _swin(config, merge_last=False, recompute=recompute)
        self.input_proj = projection(self.backbone.token_width, config.dim, config.groups)
        self.class_embed = BoxMlp(config.dim, config.classes + 1)
        self.bbox_embed = BoxMlp(config.dim, 4)

    def forward(
        self, batch: PaddedImages, *, for_losses: bool | None = None, constants: QueryConstants | None = None
    ) -> Outputs:
        """Predictions for a batch: one level, its logits (B, Q, K + 1).

        Args:
            batch: the images.
            for_losses: makes no difference, for there is one level.
            constants: what `constants` gave, not to compute it again.
        """
        del for_losses
        features = self.backbone(batch.images, batch.mask, None if constants is None else constants.tokens)
        body = _projected(self.input_proj, features.tokens).expand(batch.images.shape[0], -1, -1)
        return Outputs((LevelOutput(wide(self.class_embed(body)), wide(self.bbox_embed(body)).sigmoid()),))

    def constants(self) -> QueryConstants:
        """What does not depend on the image, in eval mode."""
        tokens = self.backbone.constant_tokens()
        return QueryConstants(tokens, tokens[..., :0], tokens[..., :0])


class FoldedDetector(nn.Module):
    """A detector for inference, with all that does not depend on the image computed once.

    Its predictions are those of `network` bit for bit, on the device and in the precision in which it was folded.

    Args:
        network: put in eval mode; its weights must not change afterwards.
    """

    def __init__(self, network: ViDT | NeckFreeViDT) -> None:
        super().__init__()
        self.network = network.eval()
        with torch.no_grad():
            constants = network.constants()
        for name in ("tokens", "positions", "references"):
            self.register_buffer(name, getattr(constants, name).clone())

    def forward(self, batch: PaddedImages) -> Outputs:
        """The final predictions for a batch."""
        constants = QueryConstants(
            self.get_buffer("tokens"), self.get_buffer("positions"), self.get_buffer("references")
        )
        outputs: Outputs = self.network(batch, for_losses=False, constants=constants)
        return outputs


def build_detector(config: DetectorConfig, *, recompute: bool = False) -> ViDT | NeckFreeViDT:
    """A detector with fresh weights, drawn from torch's global generator.

    Args:
        config: what to build.
        recompute: the activations of the backbone's blocks are computed anew in the backward pass, to save memory.
    """
    return (NeckFreeViDT if config.neck == "none" else ViDT)(config, recompute=recompute)


def first_layers(network: ViDT | NeckFreeViDT, layers: int) -> ViDT:
    """Decoding layer drop (arXiv 2110.03921, Section 4.3): the detector that predicts after the first `layers` layers.

    It shares the weights of `network`, and needs no training of its own.

    Args:
        network: with a decoder.
        layers: how many layers stay; with 0 the body's tokens predict.

    Raises:
        UserError: the network has no such layers.
    """
    if isinstance(network, NeckFreeViDT):
        raise UserError("the detector has no decoder", fix="leave out the number of decoder layers")
    have = network.config.decoder_layers
    if not 0 <= layers <= have:
        raise UserError(f"{layers} decoder layers are asked for", fix=f"the detector has {have}: give 0 to {have}")
    shared = {id(each): each for each in (*network.parameters(), *network.buffers())}
    dropped = copy.deepcopy(network, shared)
    dropped.config = replace(network.config, decoder_layers=layers)
    dropped.decoder = dropped.decoder[:layers]
    heads = dropped.heads
    for name in ("class_embed", "bbox_embed", "iou_embed"):
        embed = getattr(heads, name)
        if embed is not None:
            setattr(heads, name, embed[: layers + 1])
    return dropped


def parameter_count(network: nn.Module) -> int:
    """How many numbers the network has learned."""
    return sum(parameter.numel() for parameter in network.parameters())


def _backbone(config: DetectorConfig, *, recompute: bool) -> RamSwin | FeatureBackbone:
    if isinstance(config.backbone, BackboneConfig):
        return _swin(config, merge_last=True, recompute=recompute)
    return FeatureBackbone(config.backbone, queries=config.queries, dim=config.dim, recompute=recompute)


def _swin(config: DetectorConfig, *, merge_last: bool, recompute: bool) -> RamSwin:
    if not isinstance(config.backbone, BackboneConfig):
        raise UserError(
            f"a detector without a neck needs its DET tokens inside the backbone, and {config.backbone.name} has none",
            fix="use vidt-SIZE or vidt-plus-SIZE",
        )
    return RamSwin(
        config.backbone,
        queries=config.queries,
        dim=config.dim,
        cross_stages=config.cross_stages,
        merge_last=merge_last,
        recompute=recompute,
    )


def _projected(layer: nn.Sequential, tokens: Tensor) -> Tensor:
    """(B, Q, C) to (B, Q, D). The group norm is over the channels of a group and all Q tokens."""
    if not layer.training:
        out: Tensor = layer(tokens.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        return out
    convolution, norm = cast("tuple[nn.Conv2d, nn.GroupNorm]", tuple(layer))
    projected: Tensor = norm(linear_in_training(tokens, convolution.weight.flatten(1), convolution.bias).mT)
    return projected.mT
