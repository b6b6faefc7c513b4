"""What is timed: an operator on one size, the usual way beside it, and what was aimed at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vtk_kernels.bench import peers
from vtk_kernels.deformable import deformable_attention
from vtk_kernels.frequency import frequency_filter, frequency_filter_frames, high
from vtk_kernels.masking import keep_patches, keep_tokens, mask_patches, random_keep

Inputs = tuple[Tensor, ...]
Run = Callable[..., object]


@dataclass(frozen=True)
class Aim:
    """What was aimed at on one kind of device.

    Args:
        ratio: the usual way takes at least this many times as long.
        share: the operator moves its bytes at least at this share of the speed of copying.
    """

    ratio: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: what is done.
        operator: the public function, as `dispatch` knows it.
        peer: the usual way, in a few words.
        shape: the size, for people.
        inputs: makes one set of inputs, given (device, dtype, smallest).
        ours, theirs: run on a set of inputs; theirs where `smallest` is another size too.
        bytes: what must be read and written at least, of a set of inputs.
        cpu, cuda: the aims.
    """

    name: str
    operator: str
    peer: str
    shape: str
    inputs: Callable[[torch.device, torch.dtype, bool], Inputs]
    ours: Run
    theirs: Run
    bytes: Callable[..., int]
    cpu: Aim = Aim()
    cuda: Aim = Aim()


_PYRAMID = ((64, 64), (32, 32), (16, 16), (8, 8))
_TIME_CUT, _SPACE_CUT = 0.1, 0.01
_MEAN, _STD = 0.45, 0.225
_PATCH = 16


def _attention_inputs(device: torch.device, dtype: torch.dtype, smallest: bool) -> Inputs:
    """value, reference, offsets, logits: B 2, M 8, D 32, L 4, P 4, Q 300; offsets of a few cells."""
    queries = 10 if smallest else 300
    cells = sum(height * width for height, width in _PYRAMID)
    value = torch.randn(2, cells, 8, 32, device=device).to(dtype)
    reference = torch.rand(2, queries, 4, 2, device=device)
    return (
        value,
        reference,
        torch.randn(2, queries, 8, 4, 4, 2, device=device) * 2,
        torch.randn(2, queries, 8, 16, device=device),
    )


def _attend(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    return deformable_attention(value, _PYRAMID, reference, offsets, logits)


def _attend_usually(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    return peers.deformable_attention(value, _PYRAMID, reference, offsets, logits)


def _with_gradients(forward: Callable[..., Tensor]) -> Run:
    def run(*inputs: Tensor) -> object:
        leaves = [each.detach().requires_grad_() for each in inputs]
        return torch.autograd.grad(forward(*leaves).sum(), leaves)

    return run


def _clips(device: torch.device, dtype: torch.dtype, smallest: bool) -> Inputs:
    return (torch.randn(*((1, 3, 8, 28, 28) if smallest else (8, 3, 16, 112, 112)), device=device).to(dtype),)


def _filter_time(clip: Tensor) -> Tensor:
    return frequency_filter(clip, time=high(_TIME_CUT))


def _filter_space(clip: Tensor) -> Tensor:
    return frequency_filter(clip, space=high(_SPACE_CUT))


def _filter_both(clip: Tensor) -> Tensor:
    return frequency_filter(clip, time=high(_TIME_CUT), space=high(_SPACE_CUT))


def _filter_both_usually(clip: Tensor) -> Tensor:
    return peers.high_pass_in_space(peers.high_pass_in_time(clip, _TIME_CUT), _SPACE_CUT)


def _frames(device: torch.device, dtype: torch.dtype, smallest: bool) -> Inputs:
    """Decoded bytes, and an empty tensor of the type that is wanted."""
    sizes = (1, 8, 28, 28, 3) if smallest else (8, 16, 112, 112, 3)
    return torch.randint(0, 256, sizes, dtype=torch.uint8, device=device), torch.empty(0, dtype=dtype, device=device)


def _filter_frames(frames: Tensor, like: Tensor) -> Tensor:
    wanted = high(_TIME_CUT)
    return frequency_filter_frames(frames, wanted, mean=[_MEAN] * 3, std=[_STD] * 3, dtype=like.dtype)


def _filter_frames_usually(frames: Tensor, like: Tensor) -> Tensor:
    clip = ((frames.float() / 255 - _MEAN) / _STD).permute(0, 4, 1, 2, 3).contiguous()
    return peers.high_pass_in_time(clip, _TIME_CUT).to(like.dtype)


def _tokens(device: torch.device, dtype: torch.dtype, smallest: bool) -> Inputs:
    """x (64, 196, 768), pos, class token."""
    batch = 2 if smallest else 64
    x = torch.randn(batch, 196, 768, device=device).to(dtype)
    return x, torch.randn(196, 768, device=device).to(dtype), torch.randn(1, 768, device=device).to(dtype)


def _keep(x: Tensor, *_: Tensor) -> Tensor:
    return keep_tokens(x, random_keep(len(x), 196, 98, seed=1, device=x.device))


def _keep_with_positions(x: Tensor, pos: Tensor, token: Tensor) -> Tensor:
    return keep_tokens(x, random_keep(len(x), 196, 98, seed=1, device=x.device), pos, token)


def _images(device: torch.device, dtype: torch.dtype, smallest: bool) -> Inputs:
    return (torch.randn(2 if smallest else 64, 3, 224, 224, device=device).to(dtype),)


def _mask_image(image: Tensor) -> Tensor:
    return mask_patches(image, random_keep(len(image), 196, 98, seed=1, device=image.device), _PATCH)


def _cut_image(image: Tensor) -> Tensor:
    return keep_patches(image, random_keep(len(image), 196, 98, seed=1, device=image.device), _PATCH)


def _attention_bytes(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> int:
    out = offsets.shape[0] * offsets.shape[1] * value.shape[2] * value.shape[3] * value.element_size()
    return sum(each.nbytes for each in (value, reference, offsets, logits)) + out


def _gradient_bytes(*inputs: Tensor) -> int:
    """Everything is read again and every input gets a gradient of its size."""
    return 2 * _attention_bytes(*inputs) + sum(each.nbytes for each in inputs)


def _half_twice(x: Tensor, *_: Tensor) -> int:
    """Half of x is read and written."""
    return x.nbytes


CASES = (
    Case(
        "deformable_attention",
        "deformable_attention",
        "grid_sample",
        "B2 M8 D32 L4 P4 Q300, 64..8",
        _attention_inputs,
        _attend,
        _attend_usually,
        _attention_bytes,
        cpu=Aim(ratio=15),
        cuda=Aim(ratio=3),
    ),
    Case(
        "deformable_attention + gradients",
        "deformable_attention",
        "grid_sample, autograd",
        "B2 M8 D32 L4 P4 Q300, 64..8",
        _attention_inputs,
        _with_gradients(_attend),
        _with_gradients(_attend_usually),
        _gradient_bytes,
        cpu=Aim(ratio=6),
        cuda=Aim(ratio=3),
    ),
    Case(
        "frequency_filter, high-pass in time",
        "frequency_filter",
        "torch.fft.rfft",
        "8x3x16x112x112",
        _clips,
        _filter_time,
        lambda clip: peers.high_pass_in_time(clip, _TIME_CUT),
        lambda clip: 2 * int(clip.nbytes),
        cpu=Aim(ratio=6, share=1 / 3),
        cuda=Aim(share=0.6),
    ),
    Case(
        "frequency_filter, high-pass in space",
        "frequency_filter",
        "torch.fft.rfft2",
        "8x3x16x112x112",
        _clips,
        _filter_space,
        lambda clip: peers.high_pass_in_space(clip, _SPACE_CUT),
        lambda clip: 2 * int(clip.nbytes),
        cpu=Aim(ratio=4),
        cuda=Aim(share=0.5),
    ),
    Case(
        "frequency_filter, high-pass in time and space",
        "frequency_filter",
        "torch.fft.rfft, then rfft2",
        "8x3x16x112x112",
        _clips,
        _filter_both,
        _filter_both_usually,
        lambda clip: 2 * int(clip.nbytes),
    ),
    Case(
        "frequency_filter_frames, high-pass in time",
        "frequency_filter_frames",
        "normalise, torch.fft.rfft",
        "uint8 8x16x112x112x3",
        _frames,
        _filter_frames,
        _filter_frames_usually,
        lambda frames, like: int(frames.nbytes) * (1 + like.element_size()),
    ),
    Case(
        "random_keep + keep_tokens",
        "keep_tokens",
        "rand, argsort, gather",
        "64x196x768, K=98",
        _tokens,
        _keep,
        lambda x, *_: peers.mask_tokens(x, 98),
        _half_twice,
        cpu=Aim(ratio=3),
        cuda=Aim(share=0.7),
    ),
    Case(
        "the same with positions and a class token",
        "keep_tokens",
        "add, rand, argsort, gather, cat",
        "64x196x768, K=98",
        _tokens,
        _keep_with_positions,
        lambda x, pos, token: peers.embed_and_mask_tokens(x, pos, token, 98),
        _half_twice,
    ),
    Case(
        "random_keep + mask_patches",
        "mask_patches",
        "interpolate the mask, multiply",
        "64x3x224x224, patch 16, K=98",
        _images,
        _mask_image,
        lambda image: peers.mask_patches(image, _PATCH, 98),
        lambda image: int(image.nbytes) * 3 // 2,
        cpu=Aim(ratio=2),
        cuda=Aim(share=0.7),
    ),
    Case(
        "random_keep + keep_patches",
        "keep_patches",
        "permute, rand, argsort, gather",
        "64x3x224x224, patch 16, K=98",
        _images,
        _cut_image,
        lambda image: peers.keep_patches(image, _PATCH, 98),
        _half_twice,
    ),
)
"""In the order of the table."""
