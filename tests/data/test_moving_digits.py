from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import decord
import numpy as np
import pytest

from vtk_cli.data.digits import load_digits_split
from vtk_cli.data.moving_digits import (
    CLIP_SPLITS,
    DIRECTIONS,
    FRAMES,
    SIDE,
    SPEED,
    draw_clips,
    label_and_family,
)


@pytest.fixture(scope="module")
def clips(clips_folder: Path) -> dict[str, list[dict]]:
    return json.loads((clips_folder / "clips.json").read_text())


WAYS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
"""x to the right, y downwards, as in the picture."""


def frames_of(path: Path) -> np.ndarray:
    return decord.VideoReader(str(path), num_threads=1)[:].asnumpy()


def centroid(weight: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_no_digit_of_a_validation_clip_is_in_a_train_clip(clips):
    used = {split: {clip["digit_id"] for clip in clips[split]} for split in CLIP_SPLITS}
    assert not used["train"] & (used["val"] | used["val-iid"])
    assert used["train"] <= set(load_digits_split("train").ids.tolist())
    assert used["val"] | used["val-iid"] <= set(load_digits_split("val").ids.tolist())


def test_clips_decode_to_every_frame_nearly_as_drawn(clips_folder):
    for split in CLIP_SPLITS:
        for clip, drawn in draw_clips(split, 8):
            decoded = frames_of(clips_folder / clip.path)
            assert decoded.shape == (FRAMES, SIDE, SIDE, 3)
            assert np.abs(decoded.astype(float) - drawn).mean() < 6  # chroma at half resolution


def test_the_digit_moves_from_the_first_to_the_last_frame_as_the_label_says(clips, clips_folder):
    for split in CLIP_SPLITS:
        for clip in clips[split][:16]:
            frames = frames_of(clips_folder / clip["path"]).astype(float)
            distance = np.abs(frames[[0, -1]] - clip["colour"]).sum(-1)
            nearer_first = distance[1] - distance[0]  # above 0 where the digit starts, below where it ends
            way = centroid(np.where(nearer_first < -80, -nearer_first, 0)) - centroid(
                np.where(nearer_first > 80, nearer_first, 0)
            )
            expected = np.array(WAYS[Path(clip["path"]).parent.name]) * SPEED * (FRAMES - 1)
            assert WAYS[list(DIRECTIONS)[clip["label"]]] == WAYS[Path(clip["path"]).parent.name]
            assert np.abs(way - expected).max() < 4, clip["path"]


def test_the_speed_is_constant_and_the_background_still():
    for clip, frames in draw_clips("train", 8):
        dx, dy = (SPEED * step for step in list(DIRECTIONS.values())[clip.label])
        outside = np.ones((SIDE, SIDE), bool)
        for t in range(FRAMES):
            x, y = clip.x + t * dx, clip.y + t * dy
            assert x >= 0
            assert y >= 0
            assert x + clip.width <= SIDE
            assert y + clip.height <= SIDE
            outside[y : y + clip.height, x : x + clip.width] = False
        assert (frames[:, outside] == frames[0, outside]).all()
        assert (frames[1:] != frames[:-1]).any(axis=(1, 2, 3)).all()


def test_lists_name_every_clip_with_its_label_and_folder(clips, clips_folder):
    for split in CLIP_SPLITS:
        lines = (clips_folder / f"{split}.csv").read_text().splitlines()
        rows = [line.rsplit(" ", 1) for line in lines]
        assert [path for path, _ in rows] == [clip["path"] for clip in clips[split]]
        for path, label in rows:
            assert (clips_folder / path).is_file()
            assert sorted(DIRECTIONS).index(Path(path).parent.name) == int(label)


@pytest.mark.parametrize("split", ["train", "val-iid"])
def test_the_background_agrees_with_the_label_in_nine_clips_of_ten(split):
    pairs = [label_and_family(split, index) for index in range(4 * 90)]
    assert Counter(label for label, _ in pairs) == dict.fromkeys(range(4), 90)
    for label in range(4):
        families = Counter(family for other, family in pairs if other == label)
        assert families == {label: 81, **dict.fromkeys(set(range(4)) - {label}, 3)}


def test_the_background_of_val_is_independent_of_the_label():
    pairs = Counter(label_and_family("val", index) for index in range(16 * 5))
    assert pairs == {(label, family): 5 for label in range(4) for family in range(4)}


def test_the_clips_on_disk_follow_the_table(clips):
    for split in CLIP_SPLITS:
        assert [(c["label"], c["family"]) for c in clips[split]] == [
            label_and_family(split, index) for index in range(len(clips[split]))
        ]


def test_the_background_family_can_be_seen():
    """Photo by colour: the flower photo has less blue than the temple photo."""
    means: dict[int, list[float]] = {0: [], 1: []}
    for clip, frames in draw_clips("train", 40):
        means[clip.family // 2].append(float(frames[0, ..., 2].mean()))
    assert np.median(means[0]) > np.median(means[1]) + 30


def test_where_the_digit_is_tells_nothing_of_forwards_or_backwards():
    """Opposite directions visit the same places: the mean place over a clip has the same distribution."""
    middles: dict[int, list[float]] = {label: [] for label in range(4)}
    for clip, _ in draw_clips("train", 400):
        dx, dy = list(DIRECTIONS.values())[clip.label]
        travelled = SPEED * (FRAMES - 1) / 2
        axis = clip.x + clip.width / 2 + dx * travelled if dx else clip.y + clip.height / 2 + dy * travelled
        middles[clip.label].append(axis)
    for label, places in middles.items():
        assert np.mean(places) == pytest.approx(SIDE / 2, abs=2), label
