"""A SOLOv2 that looks at images one by one: what it finds by itself, at clicks, and of objects that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import outline_mask, outline_of_mask
from vtk_cli.data.detection.results import Detections
from vtk_cli.data.points import PointImage, PointSet, click_of_mask
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.shared_work import in_every_process
from vtk_cli.errors import JobError
from vtk_cli.segment.labels.inputs import classes_of
from vtk_cli.segment.solov2.inference import InferenceSettings, find_instances, masks_of_objects
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.point_inference import PointMasks, PointSettings, by_score, clicked_cells, masks_at_points
from vtk_cli.segment.solov2.predictions import Instances, Outputs, PointPrompt, Target, tight_boxes
from vtk_cli.segment.solov2.suppression import greedy_nms, matrix_nms
from vtk_cli.segment.solov2.targets import assign
from vtk_cli.segment.training.augmentation import Resize
from vtk_cli.segment.training.samples import SeenImage, seen_images

PUBLISHED_POINTS = PointSettings(clicked_cells, by_score)


@dataclass(frozen=True, eq=False)
class Looker:
    """A network that is ready to look at images.

    Args:
        network: in eval mode, on `device`.
        resize: of its images.
        device: where it is.
        precision: of the forward pass.
        workers: processes that read images.
    """

    network: SOLOv2
    resize: Resize
    device: torch.device
    precision: Precision = "fp32"
    workers: int = 0

    @torch.no_grad()
    def outputs(self, image: SeenImage) -> Outputs:
        """What the network gives for an image by itself.

        Raises:
            JobError: its answers are not finite.
        """
        with autocast(self.device, self.precision):
            outputs: Outputs = self.network(image.pixels.to(self.device))
        if not bool(outputs.mask_features.isfinite().all()):
            raise JobError("the network's answers are not finite: its weights are damaged or its training diverged")
        return outputs

    def seen(self, images: Sequence[ImageRecord | PointImage]) -> Iterator[tuple[SeenImage, Outputs]]:
        """Images one after another with what the network gives for them."""
        for image in seen_images(images, self.resize, self.network.config.padding_multiple, self.workers):
            yield image, self.outputs(image)

    def instances(
        self, image: SeenImage, outputs: Outputs, settings: InferenceSettings, present: Sequence[int] | None = None
    ) -> Instances:
        """What the network finds by itself; where the classes that are `present` are known, of these."""
        return find_instances(outputs, image.frame, self.network.config.levels, settings, present)

    def at_points(
        self, image: SeenImage, outputs: Outputs, prompts: Sequence[PointPrompt], settings: PointSettings
    ) -> PointMasks:
        """The masks of clicks."""
        return masks_at_points(outputs, image.frame, self.network.config.levels, prompts, settings)

    def of_objects(self, image: SeenImage, outputs: Outputs, record: ImageRecord) -> Instances:
        """The masks that the network makes of the objects of an image that is fully labelled."""
        config, frame = self.network.config, image.frame
        kept = record.objects(~record.crowd)
        masks = torch.from_numpy(kept.masks())
        sized = torch.nn.functional.interpolate(masks[None].float(), size=frame.resized, mode="nearest-exact")[0] > 0
        labels = torch.from_numpy(kept.labels)
        target = Target(labels, sized, tight_boxes(sized)).to(self.device)
        targets = assign(target, config.levels, config.sigma, frame.padded, config.mask_stride)
        return masks_of_objects(outputs, frame, config.levels, targets)


def normal_settings(*, teacher: bool) -> InferenceSettings:
    """Normal inference: a teacher's suppresses overlapping masks greedily, a student's by matrix NMS."""
    return InferenceSettings(suppress=greedy_nms if teacher else matrix_nms)


def found_by_itself(
    looker: Looker, dataset: DetectionSet, settings: InferenceSettings, *, world: World, console: Console
) -> list[Detections]:
    """What the network finds in all images without clicks; of all processes, in every process."""

    def find(image: SeenImage, outputs: Outputs) -> Instances:
        return looker.instances(image, outputs, settings)

    return _found(looker, dataset.records, find, "segmenting", world=world, console=console)


def found_of_classes(
    looker: Looker, dataset: DetectionSet, settings: InferenceSettings, *, world: World, console: Console
) -> list[Detections]:
    """What the network finds where it is told which classes each image has; as `found_by_itself`."""

    def find(image: SeenImage, outputs: Outputs) -> Instances:
        record = dataset.records[image.index]
        return looker.instances(image, outputs, settings, sorted(set(record.labels[~record.crowd].tolist())))

    return _found(looker, dataset.records, find, "segmenting", world=world, console=console)


def found_at_clicks(
    looker: Looker,
    points: PointSet,
    prompts: Sequence[Sequence[PointPrompt]],
    settings: PointSettings,
    *,
    world: World,
    console: Console,
) -> list[Detections]:
    """The masks of clicks, each with the score 1: their average precision is that of the masks alone.

    Of all processes, in every process.
    """

    def find(image: SeenImage, outputs: Outputs) -> Instances:
        return looker.at_points(image, outputs, prompts[image.index], settings).instances.certain()

    return _found(looker, points.images, find, "segmenting at clicks", world=world, console=console)


def clicked_centroids(dataset: DetectionSet) -> PointSet:
    """Fully labelled images with a click on the centroid of each object."""
    images = []
    for record in dataset.records:
        kept = record.objects(~record.crowd)
        masks = (outline_mask(outline, record.height, record.width) for outline in kept.outlines)
        clicks = [
            (click_of_mask(mask, "centroid"), label)
            for mask, label in zip(masks, kept.labels, strict=True)
            if mask.any()
        ]
        images.append(
            PointImage(
                record.file,
                record.id,
                record.width,
                record.height,
                np.array([point for point, _ in clicks], np.float64).reshape(-1, 2),
                np.array([label for _, label in clicks], np.int64),
                np.arange(1, 1 + len(clicks)),
                tuple("segmentation" for _ in clicks),
            )
        )
    return PointSet(dataset.name, tuple(images), classes_of(dataset))


def detections_of(image_id: int, instances: Instances) -> Detections:
    """What was found in an image, as evaluation and files take it."""
    own = instances.cpu()
    masks = tuple(outline_of_mask(mask) for mask in own.masks.numpy())
    return Detections(image_id, own.boxes.double().numpy(), own.scores.double().numpy(), own.labels.numpy(), masks)


def _found(
    looker: Looker,
    images: Sequence[ImageRecord | PointImage],
    find: Callable[[SeenImage, Outputs], Instances],
    description: str,
    *,
    world: World,
    console: Console,
) -> list[Detections]:
    """What `find` finds in each image, in their order: the processes take turns, and each image is seen by itself."""
    mine = range(len(images))[world.rank :: world.size]

    def look_at_mine() -> list[tuple[int, Detections]]:
        found = []
        with console.progress(description, len(mine)) as progress:
            for seen, outputs in looker.seen([images[index] for index in mine]):
                index = mine[seen.index]
                found.append((index, detections_of(images[index].id, find(replace(seen, index=index), outputs))))
                progress.advance(1)
        return found

    parts = in_every_process(world, look_at_mine)
    return [one for _, one in sorted(chain.from_iterable(parts), key=lambda pair: pair[0])]
