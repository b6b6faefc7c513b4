"""Distillation with token matching: a student's tokens are drawn to its teacher's, one to one.

arXiv 2110.03921, Section 3.3. Student and teacher have equally many DET tokens, levels and layers, of one width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vtk_cli.detect.configurations import BackboneConfig, DetectorConfig
from vtk_cli.detect.heads import wide
from vtk_cli.detect.predictions import DistillationTokens, PaddedImages
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.whole_batch import summed
from vtk_cli.errors import UserError


def check_teacher(student: DetectorConfig, teacher: DetectorConfig) -> None:
    """Refuse a teacher whose tokens are not matched by the student's.

    Raises:
        UserError: it has no decoder, or another number or width of tokens, or the DET tokens of one of the two see the
            image in the backbone and those of the other pass it by.
    """
    if "none" in (student.neck, teacher.neck):
        raise UserError("detectors without a decoder cannot be distilled", fix="use vidt-SIZE or vidt-plus-SIZE")
    if isinstance(student.backbone, BackboneConfig) != isinstance(teacher.backbone, BackboneConfig):
        names = f"of {student.backbone.name} do not match those of the teacher's {teacher.backbone.name}"
        what = f"the DET tokens {names}: a Swin's see the image, and those of other networks pass it by"
        raise UserError(what, fix="distil a Swin from a Swin, or a --backbone from another one")
    for field, name in (
        ("queries", "DET tokens"),
        ("dim", "channels in the decoder"),
        ("decoder_layers", "decoder layers"),
        ("neck", "neck"),
    ):
        mine, theirs = getattr(student, field), getattr(teacher, field)
        if mine != theirs:
            what = f"the teacher's tokens do not match the student's: {name} {theirs}, not {mine}"
            raise UserError(what, fix="distil detectors that differ in the backbone alone")


@torch.no_grad()
def teacher_tokens(teacher: nn.Module, batch: PaddedImages) -> DistillationTokens:
    """The tokens of a teacher, a `ViDT` in eval mode, without gradients."""
    tokens: DistillationTokens = teacher(batch, for_losses=True).distil
    return tokens


def token_distance(student: DistillationTokens, teacher: DistillationTokens) -> Tensor:
    """How far the student's tokens are from the teacher's: mean 2-norms, added up over patches, body and decoder.

    sum_l mean_i |P_li - P'_li| + mean_i |t_i - t'_i| + L mean_li |h_li - h'_li|: levels l of patches, the L levels of
    decoder tokens, the first of which is the body, which thus counts twice.

    Args:
        student: the tokens to learn.
        teacher: the tokens to match; detached here.
    """
    patches = [_mean_norm(mine, theirs) for mine, theirs in zip(student.patches, teacher.patches, strict=True)]
    levels = len(student.decoder) * _mean_norm(student.decoder, teacher.decoder)
    return torch.stack(patches).sum() + _mean_norm(student.body, teacher.body) + levels


def rooted_token_distance(
    student: DistillationTokens, teacher: DistillationTokens, world: World | None = None
) -> Tensor:
    """The square root of `token_distance`, as published; where that is 0 the gradient is 0.

    Among several processes the root is that of their mean distance, since the mean of their roots would be another
    loss.
    """
    distance = summed(token_distance(student, teacher), world) / (1 if world is None else world.size)
    return distance.clamp(min=torch.finfo(distance.dtype).tiny).sqrt()


def _mean_norm(mine: Tensor, theirs: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(wide(mine) - wide(theirs.detach()), dim=-1)
    return norm.mean()
