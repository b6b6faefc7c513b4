"""The embedders and the ways of resizing by name. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

INCEPTION, DIGITS = "inception", "digits-cnn"
EMBEDDERS = {
    INCEPTION: "Inception-v3 of published FIDs, from a file that you give (--inception FILE)",
    DIGITS: "a small network trained here on the embedded digits; no measure of other images",
}
"""Any other name is a timm network (`resnet50.a1_in1k`, `vit_small_patch14_dinov2.lvd142m`), with its weights."""

Resize = Literal["clean", "legacy"]
RESIZES: dict[Resize, str] = {
    "clean": "bicubic with antialiasing, each channel in floating point, as clean-fid does (arXiv 2104.11222)",
    "legacy": "bilinear without antialiasing, as pytorch-fid does",
}
