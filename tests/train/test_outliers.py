from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.data.classification import EvalSet, ImageSource
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.errors import UserError
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.outliers import outlier_precision, score_outliers

CPU = torch.device("cpu")
PIXELS = PixelConfig(8, (0.0,) * 3, (1.0,) * 3, crop_pct=1.0)


class ByRed(nn.Module):
    """Logits of three classes: red in the first, green in the second, blue in the third, each 20 times."""

    def forward(self, images: Tensor) -> Tensor:
        return 20 * images.mean(dim=(2, 3))


def images(colours: list[tuple[int, int, int]], targets: Tensor) -> ImageSource:
    values = np.array(colours, np.uint8)[:, :, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    return ImageSource("x", ("r", "g", "b"), targets, ArrayReader(values), tuple(map(str, range(len(colours)))))


def scored(own: ImageSource, outliers: EvalSet) -> list:
    options = {"device": CPU, "precision": "fp32", "batch_size": 2, "workers": 0, "console": Console(quiet=True)}
    return score_outliers(ByRed(), {"o": outliers}, own, pixels=PIXELS, **options)


def test_outliers_of_less_confidence_than_all_others_are_found_without_fault() -> None:
    assert outlier_precision(np.array([0.1, 0.2]), np.array([0.3, 0.9, 0.5])) == 1.0


def test_confidence_that_knows_nothing_comes_to_the_share_of_outliers() -> None:
    assert outlier_precision(np.full(3, 0.5), np.full(9, 0.5)) == pytest.approx(0.25)


def test_the_area_is_the_mean_precision_at_each_outlier() -> None:
    # From the least sure on: outlier, class, outlier, class: precision 1 and 2/3 where an outlier comes.
    assert outlier_precision(np.array([0.1, 0.3]), np.array([0.2, 0.4])) == pytest.approx((1 + 2 / 3) / 2)


def test_logits_and_images_of_the_classes_of_the_set_alone_count() -> None:
    own = images([(255, 0, 0), (0, 255, 0), (128, 120, 128)], torch.tensor([0, 1, 2]))
    outliers = images([(100, 110, 255), (90, 100, 255)], torch.tensor([0, 1]))
    found = scored(own, EvalSet(outliers, (0, 1)))
    # Blue would make the outliers sure; among red and green they are not, and the image of blue does not count.
    assert [(score.name, score.measure, score.value, score.images) for score in found] == [("o", "AUPR", 1.0, 4)]
    assert scored(own, EvalSet(outliers, None))[0].value < 1


def test_a_set_of_classes_that_no_image_has_is_refused() -> None:
    own = images([(255, 0, 0)], torch.tensor([0]))
    with pytest.raises(UserError, match="has no images of its classes"):
        scored(own, EvalSet(images([(0, 0, 0)], torch.tensor([2])), (1, 2)))


def test_images_of_several_labels_are_refused() -> None:
    own = images([(255, 0, 0)], torch.tensor([[1.0, 0.0, 1.0]]))
    with pytest.raises(UserError, match="says nothing of images that may show several"):
        scored(own, EvalSet(images([(0, 0, 0)], torch.tensor([2])), None))
