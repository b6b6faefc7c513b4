from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data import classification_named
from vtk_cli.data.classification import ImageSource, open_classification
from vtk_cli.data.classification_folders import FileReader
from vtk_cli.data.digits import load_digits_split
from vtk_cli.data.images import BrokenImage
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import CACHE_VARIABLE

QUIET = Console(quiet=True)


def save(path: Path, value: int = 128, size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path)
    return path


def fill(root: Path, **classes: int) -> Path:
    """Class folders with so many images, whose red is 10 x class number + image number."""
    for label, (name, count) in enumerate(sorted(classes.items())):
        for number in range(count):
            save(root / name / f"{number}.png", 10 * label + number)
    return root


def refused(data: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_classification(str(data), console=QUIET, **options)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reds(source: ImageSource) -> list[int]:
    return [source.read(index).getpixel((0, 0))[0] for index in range(len(source))]  # type: ignore[index]


def test_digits_are_the_embedded_splits_in_memory() -> None:
    splits = open_classification("digits", console=QUIET)
    assert splits.val is not None
    for split, source in (("train", splits.train), ("val", splits.val)):
        expected = load_digits_split(split)  # type: ignore[arg-type]
        assert source.class_names == tuple("0123456789")
        assert source.targets.tolist() == expected.labels.tolist()
        assert source.targets.dtype == torch.int64
        assert source.names[3] == f"digits/{expected.ids[3]:06d}"
        assert np.array_equal(np.asarray(source.read(3)).transpose(2, 0, 1), expected.images[3])
        assert not source.multi_label


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test"])
def test_train_and_the_folder_to_evaluate_on_are_read_under_any_of_its_names(tmp_path: Path, val: str) -> None:
    fill(tmp_path / "train", cat=3, dog=2)
    fill(tmp_path / val, cat=1, dog=2)
    splits = open_classification(str(tmp_path), console=QUIET)
    assert splits.train.names == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png")
    assert splits.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert reds(splits.train) == [0, 1, 2, 10, 11]
    assert splits.val is not None
    assert splits.val.names == ("cat/0.png", "dog/0.png", "dog/1.png")
    assert reds(splits.val) == [0, 10, 11]
    assert splits.val.class_names == splits.train.class_names == ("cat", "dog")


def test_class_folders_alone_are_for_training_and_say_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = open_classification(str(fill(tmp_path, cat=1, dog=1)), console=QUIET)
    assert splits.val is None
    assert len(splits.train) == 2
    assert capsys.readouterr().err.count("warning") == 1


def test_another_folder_to_evaluate_on_may_be_named(tmp_path: Path) -> None:
    fill(tmp_path / "a", cat=2, dog=1)
    fill(tmp_path / "b", cat=1, dog=1)
    splits = open_classification(str(tmp_path / "a"), val=str(tmp_path / "b"), console=QUIET)
    assert splits.val is not None
    assert splits.val.names == ("cat/0.png", "dog/0.png")
    assert "no such folder" in refused(tmp_path / "a", val=str(tmp_path / "c"))


def test_a_list_of_labels_may_stand_for_the_class_folders_of_val(tmp_path: Path) -> None:
    fill(tmp_path / "train", a=1, b=1, c=1)
    for name in ("2.png", "1.png"):
        save(tmp_path / "val" / name, int(name[0]))
    (tmp_path / "val.txt").write_text("2.png 2\n1.png 0\n")
    splits = open_classification(str(tmp_path), console=QUIET)
    assert splits.val is not None
    assert splits.val.targets.tolist() == [0, 2]
    assert reds(splits.val) == [1, 2]
    (tmp_path / "val.txt").write_text("2.png 3\n1.png 0\n")
    assert "the largest label is 3, but" in refused(tmp_path)


def test_class_folders_that_differ_are_named_with_counts(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=1, dog=1, emu=1, **{f"x{number}": 1 for number in range(7)})
    fill(tmp_path / "val", cat=1, dog=1, fox=1)
    message = refused(tmp_path)
    assert f"8 only in {tmp_path}/train (emu, x0, x1, x2, x3, ...)" in message
    assert f"1 only in {tmp_path}/val (fox)" in message


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    assert "one class only (cat)" in refused(fill(tmp_path, cat=4))


def test_empty_class_folders_are_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=1, dog=1)
    fill(tmp_path / "val", cat=1, dog=1)
    (tmp_path / "train" / "emu").mkdir()
    (tmp_path / "train" / "fox").mkdir()
    assert f"{tmp_path}/train: 2 class folders have no images: emu, fox" in refused(tmp_path)


def test_a_folder_without_images_and_one_without_classes_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    save(tmp_path / "flat" / "1.png")
    assert "no images" in refused(tmp_path / "empty")
    assert "1 images but no class folders" in refused(tmp_path / "flat")
    assert "no such folder, file or dataset" in refused(tmp_path / "missing")
    assert "did you mean digits" in refused("digit")
    assert "videos" in refused("moving-digits")
    assert "is a file" in refused(save(tmp_path / "flat" / "1.png"))


def test_images_of_one_pixel_and_of_every_mode_are_upright_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    fill(tmp_path, b=1)
    Image.new("RGB", (1, 1), (9, 8, 7)).save(folder / "0_pixel.png")
    Image.fromarray(np.full((3, 4), 257 * 100, np.uint16)).save(folder / "1_sixteen.png")
    Image.new("CMYK", (4, 3), (0, 0, 0, 155)).save(folder / "2_cmyk.jpg", quality=100)
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 100, 100, 100])
    palette.save(folder / "3_palette.png")
    Image.new("RGBA", (4, 3), (0, 0, 0, 155)).save(folder / "4_alpha.png")
    Image.new("LA", (4, 3), (0, 155)).save(folder / "5_grey_alpha.png")
    turned = Image.new("RGB", (4, 3), (100, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "6_turned.jpg", exif=exif, quality=100)
    splits = open_classification(str(tmp_path), console=QUIET)
    images = [splits.train.read(index) for index in range(7)]
    assert {image.mode for image in images} == {"RGB"}
    assert images[0].size == (1, 1)
    assert images[6].size == (3, 4)
    for image in images[1:]:
        assert np.abs(np.asarray(image).astype(int) - 100).max() <= 1


def test_a_drawn_few_of_each_class_are_a_part_of_a_larger_draw(tmp_path: Path) -> None:
    fill(tmp_path, a=9, b=8, c=9)

    def drawn(count: int, seed: int) -> set[str]:
        few = open_classification(str(tmp_path), console=QUIET, images_per_class=count, seed=seed).train
        assert torch.bincount(few.targets).tolist() == [count] * 3
        assert reds(few) == [10 * "abc".index(name[0]) + int(name[2]) for name in few.names]
        return set(few.names)

    assert drawn(2, 0) < drawn(5, 0) < drawn(8, 0)
    assert drawn(4, 0) != drawn(4, 1)
    assert "at least 1" in refused(tmp_path, images_per_class=0)


def test_classes_that_have_too_few_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "train", a=2, b=5)
    fill(tmp_path / "val", a=1, b=1)
    few = open_classification(str(tmp_path), console=QUIET, images_per_class=3).train
    assert torch.bincount(few.targets).tolist() == [2, 3]
    assert "1 classes have fewer than 3 images: a" in capsys.readouterr().err


def test_a_source_travels_to_a_worker_process(tmp_path: Path) -> None:
    source = open_classification(str(fill(tmp_path, a=3, b=2)), console=QUIET).train.subset([4, 1])
    there = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert there.names == source.names == ("b/1.png", "a/1.png")
    assert reds(there) == reds(source) == [11, 1]
    assert there.targets.tolist() == [1, 0]
    assert [there.size(0), there.size(1)] == [source.read(0).size, source.read(1).size]


def test_files_of_any_name_are_read_by_number(tmp_path: Path) -> None:
    names = ("a/1.png", "ü/x y.png", os.fsdecode(b"b/\xff.png"), "a/long name of a file.png")
    for width, name in enumerate(names, 1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, 9)).save(tmp_path / name)
    read = FileReader(tmp_path, names)
    assert [read(index).size for index in range(4)] == [read.size(index) for index in range(4)]
    assert [read.size(index)[0] for index in range(4)] == [1, 2, 3, 4]
    with pytest.raises(BrokenImage, match="no such file"):
        FileReader(tmp_path, ("gone.png",)).size(0)


def test_a_worker_needs_a_few_bytes_of_each_name_and_no_object(tmp_path: Path) -> None:
    names = [f"n{index:08d}/n{index:08d}_1.JPEG" for index in range(1000)]
    held = vars(FileReader(tmp_path, names)).values()
    assert sum(isinstance(value, (str, list, tuple)) for value in held) == 0
    assert sum(len(value) for value in held if isinstance(value, bytes)) == sum(map(len, names))


def test_the_size_of_an_image_that_was_made_otherwise_is_that_of_the_image() -> None:
    source = open_classification("digits", console=QUIET).train
    assert source.size(3) == source.subset([3]).size(0) == (32, 32)


@pytest.fixture
def coco(coco_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(coco_folder, tmp_path / "coco")
    return tmp_path / "coco"


def changed(coco: Path, split: str = "train", **sections: Any) -> Path:
    path = coco / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | sections))
    return path


def test_coco_targets_say_which_categories_an_image_shows(coco: Path) -> None:
    splits = open_classification(str(coco), console=QUIET)
    assert splits.val is not None
    for split, source in (("train", splits.train), ("val", splits.val)):
        content = json.loads((coco / "annotations" / f"instances_{split}.json").read_text())
        order = sorted(content["categories"], key=lambda category: category["id"])
        assert source.class_names == tuple(category["name"] for category in order)
        assert source.multi_label
        assert source.targets.dtype == torch.float32
        for number, image in enumerate(content["images"]):
            shown = {entry["category_id"] for entry in content["annotations"] if entry["image_id"] == image["id"]}
            assert source.targets[number].tolist() == [float(category["id"] in shown) for category in order]
            assert source.names[number] == image["file_name"]
        assert source.read(0).size == (content["images"][0]["width"], content["images"][0]["height"])


def test_coco_categories_are_in_the_order_of_their_ids(coco: Path) -> None:
    before = open_classification(str(coco), console=QUIET).train
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())
    changed(coco, categories=content["categories"][::-1])
    after = open_classification(str(coco), console=QUIET).train
    assert after.class_names == before.class_names
    assert torch.equal(after.targets, before.targets)


def test_a_coco_file_may_be_given_by_itself(coco: Path) -> None:
    train, val = (str(coco / "annotations" / f"instances_{split}.json") for split in ("train", "val"))
    assert open_classification(train, console=QUIET).val is None
    splits = open_classification(train, val=val, console=QUIET)
    assert splits.val is not None
    assert len(splits.val) == len(open_classification(str(coco), console=QUIET).val or ())


def test_coco_files_that_are_no_dataset_are_refused(coco: Path) -> None:
    content = json.loads((coco / "annotations" / "instances_train.json").read_text())
    changed(coco, annotations=[])
    assert "has no annotations, so no labels" in refused(coco)
    changed(coco, annotations=[*content["annotations"], {"image_id": 10**6, "category_id": 1}])
    assert f"annotation {len(content['annotations'])} is of an unknown image" in refused(coco)
    changed(coco, annotations=content["annotations"], categories=content["categories"][:1])
    assert "has 1 category" in refused(coco)
    changed(coco, categories=[*content["categories"], {"id": 99, "name": "emu"}])
    assert "1 only in" in refused(coco)
    assert "99 emu" in refused(coco)
    changed(coco, categories=content["categories"], images=content["images"] + content["images"][:2])
    assert "2 image ids are used twice" in refused(coco)
    changed(coco, images=content["images"])
    for image in content["images"][:3]:
        (coco / "train" / image["file_name"]).unlink()
    assert f"3 of {len(content['images'])} images are missing" in refused(coco)
    assert "--images-per-class" in refused(coco / "annotations" / "instances_val.json", images_per_class=2)


def test_several_years_of_a_split_must_be_chosen_from(coco: Path) -> None:
    path = coco / "annotations" / "instances_train.json"
    path.rename(path.with_name("instances_train2014.json"))
    (coco / "train").rename(coco / "train2014")
    assert len(open_classification(str(coco), console=QUIET).train) == 40
    shutil.copy(path.with_name("instances_train2014.json"), path.with_name("instances_train2017.json"))
    assert "2 annotation files of train" in refused(coco)


class _Held:
    """A map-style dataset as torchvision has them."""

    classes = ("emu", "fox")

    def __init__(self, split: str) -> None:
        self.targets = [0, 1, 1] if split == "train" else [1, 0]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 2:
            raise OSError("torn")
        return Image.new("L", (3, 3), 50 + index), self.targets[index]


class _Untold(_Held):
    """Its labels are known only from its samples."""

    classes = ()

    def __init__(self, split: str) -> None:
        self.secret = [2, 0] if split == "train" else [1]

    def __len__(self) -> int:
        return len(self.secret)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (3, 3)), self.secret[index]


@pytest.fixture
def timm_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Lets `create_dataset` return what is given."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def has(make: Any) -> None:
        def created(name: str, root: str, split: str, download: bool = False) -> Any:
            return make(split)

        monkeypatch.setattr(classification_named, "create_dataset", created)

    return has


def test_a_dataset_of_timm_is_read_by_number(timm_has: Any) -> None:
    timm_has(_Held)
    splits = open_classification("torch/held", console=QUIET)
    assert splits.val is not None
    assert splits.train.class_names == splits.val.class_names == ("emu", "fox")
    assert splits.train.targets.tolist() == [0, 1, 1]
    assert splits.val.targets.tolist() == [1, 0]
    assert splits.train.read(1).mode == "RGB"
    assert splits.train.read(1).getpixel((0, 0)) == (51, 51, 51)
    with pytest.raises(BrokenImage, match="held/train/000002: torn"):
        splits.train.read(2)


def test_labels_that_only_samples_tell_are_read_from_them(timm_has: Any) -> None:
    timm_has(_Untold)
    splits = open_classification("torch/untold", console=QUIET)
    assert splits.train.targets.tolist() == [2, 0]
    assert splits.train.class_names == ("0", "1", "2")


def test_the_folder_readers_of_timm_give_every_image_its_own_label(timm_has: Any, tmp_path: Path) -> None:
    """timm's data set puts the next image in the place of a broken one."""
    from timm.data import ImageDataset

    fill(tmp_path / "images", a=2, b=1)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"torn")
    timm_has(lambda split: ImageDataset(str(tmp_path / "images")))
    source = open_classification("torch/folders", console=QUIET).train
    assert source.class_names == ("a", "b")
    assert source.targets.tolist() == [0, 0, 1]
    assert source.read(2).getpixel((0, 0)) == (10, 0, 245)
    with pytest.raises(BrokenImage):
        source.read(1)


def test_a_dataset_that_cannot_be_had_is_the_users_to_mend(timm_has: Any) -> None:
    def offline(split: str) -> Any:
        raise OSError("Name or service not known")

    timm_has(offline)
    assert "torch/held cannot be opened: Name or service not known; where there is no network" in refused("torch/held")
    assert "cannot be had by number" in refused("wds/imagenet")
    timm_has(lambda split: iter([]))
    assert "cannot be had by number" in refused("torch/held")


def test_a_package_that_timm_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def lacking(*arguments: Any, **keywords: Any) -> Any:
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")

    monkeypatch.setattr(classification_named, "create_dataset", lacking)
    assert "needs the package datasets; pip install datasets" in refused("hfds/some/thing")
