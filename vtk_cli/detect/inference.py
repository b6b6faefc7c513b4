"""Detections of many images: read, resized, batched, seen by the network, brought back to the original sizes.

A batch holds images of one size only, so none is padded for another's sake: the window attention of a Swin sees
padding, and what is detected in an image would depend on its neighbours in the batch. Several processes share out whole
batches, so that each image is seen in the company that it has in one process: what is found is the same to the last
bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.data.detection.results import Detections, joined
from vtk_cli.detect import postprocess
from vtk_cli.detect.checkpoint import Detector
from vtk_cli.detect.mask_code import above_half
from vtk_cli.detect.postprocess import sigmoid_ranking, softmax_ranking
from vtk_cli.detect.predictions import LevelOutput, Outputs, PaddedImages, Target
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.samples import EvaluationImages
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.shared_work import in_every_process
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.errors import JobError

Batch = tuple[PaddedImages, tuple[Target, ...]]


class EvaluationBatches:
    """Batches of images of one size, this process's share of them; no image is in two.

    Args:
        dataset: the images.
        preprocessing: of the network.
        batch_size: images at a time, in each process; whatever depends on it, the number of processes must not.
        workers: processes that read; with 0 this one does. They live until `close`.
        world: this process among the others; None for a single one.
        pin_memory: for a GPU.
    """

    def __init__(
        self,
        dataset: DetectionSet,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        workers: int,
        world: World | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        sizes = [(record.height, record.width) for record in dataset.records]
        chosen = same_sized([preprocessing.extent(*size) for size in sizes], batch_size)
        self._chosen = chosen if world is None else chosen[world.rank :: world.size]
        self.world = world
        self._make: Callable[[], DataLoader[Batch]] = lambda: DataLoader(
            EvaluationImages(dataset, preprocessing.transform),  # type: ignore[arg-type]  # collated
            batch_sampler=self._chosen,
            num_workers=workers,
            collate_fn=preprocessing.collate,
            pin_memory=False if workers == 0 else pin_memory,
            worker_init_fn=outlive_stop_signals,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # its own: the loader draws from it
        )
        self._loader: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        """Images, in this process."""
        return sum(map(len, self._chosen))

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._make()
        yield from self._loader

    def close(self) -> None:
        """End the worker processes; another round starts new ones."""
        self._loader = None


def same_sized(extents: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size`, each of one extent; largest first, within an extent in order."""
    by_extent: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, extent in enumerate(extents):
        by_extent[extent].append(index)
    largest_first = sorted(by_extent.items(), key=lambda item: (-item[0][0] * item[0][1], item[0]))
    return [
        indices[start : start + batch_size]
        for _, indices in largest_first
        for start in range(0, len(indices), batch_size)
    ]


class Inference:
    """A detector that looks at batches; what does not depend on the images is computed once.

    Args:
        network: on `device`; put in eval mode, and its weights must not change afterwards.
        device: where the network is.
        precision: of the forward pass.
    """

    def __init__(self, network: Detector, device: torch.device, precision: Precision = "fp32") -> None:
        self._network, self._device, self._precision = network.eval(), device, precision
        self._rank = softmax_ranking if network.config.neck == "none" else sigmoid_ranking
        with torch.no_grad(), autocast(device, precision):
            self._constants = self._network.constants()

    @torch.no_grad()
    def final(self, batch: PaddedImages) -> LevelOutput:
        """The final predictions for a batch on the device."""
        with autocast(self._device, self._precision):
            outputs: Outputs = self._network(batch, for_losses=False, constants=self._constants)
        return outputs.final

    @torch.no_grad()
    def __call__(
        self,
        batch: PaddedImages,
        sizes: Sequence[tuple[int, int]],
        *,
        masks: bool = False,
        filled: Callable[[Tensor], Tensor] = above_half,
    ) -> list[postprocess.Detections]:
        """The detections of a batch, at most 100 an image.

        Args:
            batch: on the device.
            sizes: original height and width of each image.
            masks: with the objects' masks.
            filled: see `postprocess.detections`.

        Raises:
            JobError: the detector's answers are not finite.
        """
        final = self.final(batch)
        found = postprocess.detections(final, self._rank(final.logits), sizes, masks=masks, filled=filled)
        if not all(bool(one.boxes.isfinite().all() & one.scores.isfinite().all()) for one in found):
            raise JobError("the detector's answers are not finite: its weights are damaged or its training diverged")
        return found


def detect(
    network: Detector,
    batches: EvaluationBatches,
    *,
    device: torch.device,
    precision: Precision,
    masks: bool,
    console: Console,
) -> list[Detections]:
    """What `network` finds in all images, at most 100 an image: of all processes, in every process.

    Args:
        network: on `device`.
        batches: of the images.
        device: where the network is.
        precision: of the forward pass.
        masks: with the objects' masks.
        console: shows the progress.

    Raises:
        JobError: the network's answers are not finite.
        UserError: an image can no longer be read; raised in every process.
    """

    def look_at_mine() -> list[Detections]:
        found: list[Detections] = []
        look = Inference(network, device, precision)
        with console.progress("detecting", len(batches)) as progress:
            for images, targets in batches:
                sizes = [target.original_size for target in targets]
                each = look(images.to(device, non_blocking=True), sizes, masks=masks)
                found += [host_detections(one, target.image_id) for one, target in zip(each, targets, strict=True)]
                progress.advance(len(targets))
        return found

    return joined(in_every_process(batches.world or World(0, 1, 0, device), look_at_mine))


def host_detections(found: postprocess.Detections, image_id: int) -> Detections:
    """What was found in an image, as evaluation and files take it."""
    own = found.cpu()
    return Detections(
        image_id,
        own.boxes.double().numpy(),
        own.scores.double().numpy(),
        own.labels.numpy(),
        None if own.masks is None else tuple(outline_of_mask(mask) for mask in own.masks.numpy()),
    )
