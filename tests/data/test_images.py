from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.images import BrokenImage, decode_image, image_size, open_images, scan
from vtk_cli.errors import UserError


def save(path: Path, value: int = 128, size: tuple[int, int] = (4, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 255 - value)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """An ImageFolder: three classes of 4, 2 and 1 images, at different depths and in different letter case."""
    for name in ("b/1.png", "b/2.JPG", "b/deep/er/3.jpeg", "b/4.WebP", "a/x.bmp", "a/y.tiff", "c/only.ppm"):
        save(tmp_path / name)
    (tmp_path / "b" / "readme.txt").write_text("no image")
    (tmp_path / "b" / "._1.png").write_bytes(b"a file that macOS leaves behind")
    (tmp_path / ".git").mkdir()
    save(tmp_path / ".git" / "hidden.png")
    return tmp_path


def test_class_folders_give_sorted_labels_and_paths(folders):
    images = open_images(folders)
    assert images.paths == ("a/x.bmp", "a/y.tiff", "b/1.png", "b/2.JPG", "b/4.WebP", "b/deep/er/3.jpeg", "c/only.ppm")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1, 2]
    assert images.labels.dtype == np.int64
    assert images.class_names == ("a", "b", "c")
    assert images.sizes == tuple((folders / path).stat().st_size for path in images.paths)
    assert images.file(2) == folders / "b" / "1.png"


def test_one_class_folder_is_enough(tmp_path):
    save(tmp_path / "cat" / "1.png")
    assert open_images(tmp_path).class_names == ("cat",)


def test_an_empty_class_folder_keeps_its_label(folders):
    (folders / "aa").mkdir()
    images = open_images(folders)
    assert images.class_names == ("a", "aa", "b", "c")
    assert set(images.labels) == {0, 2, 3}


def test_of_train_and_val_val_is_read(tmp_path):
    save(tmp_path / "train" / "cat" / "1.png")
    save(tmp_path / "val" / "cat" / "2.png")
    save(tmp_path / "val" / "dog" / "3.png")
    images = open_images(tmp_path)
    assert images.root == tmp_path / "val"
    assert images.paths == ("cat/2.png", "dog/3.png")
    assert images.labels.tolist() == [0, 1]


@pytest.mark.parametrize("inside", ["", "val"])
def test_val_txt_gives_the_labels_of_files_beside_it_or_in_val(tmp_path, inside):
    names = ["ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG", "with space.JPEG"]
    for name in names:
        save(tmp_path / inside / name)
    save(tmp_path / inside / "not listed.JPEG")
    save(tmp_path / "train" / "n01440764" / "x.JPEG")
    (tmp_path / "val.txt").write_text(f"{names[0]} 65\n\n{names[1]}\t970\r\n{names[2]} 0\n")
    images = open_images(tmp_path)
    assert images.root == tmp_path / inside
    assert images.paths == (names[1], names[0], names[2])
    assert images.labels.tolist() == [970, 65, 0]
    assert images.class_names is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a.png", "not `file index`"),
        ("a.png cat", "not `file index`"),
        ("a.png -1", "not `file index`"),
        ("a.png 1000000", "index is above 999999"),
        ("a.png " + "9" * 5000, "index is above 999999"),
        ("gone.png 3", "listed image is missing"),
        ("a.png 4", "two labels"),
    ],
)
def test_a_wrong_line_of_val_txt_is_named(tmp_path, line, fault):
    save(tmp_path / "a.png")
    (tmp_path / "val.txt").write_text(f"a.png 3\n{line}\n")
    with pytest.raises(UserError, match=fault) as caught:
        open_images(tmp_path)
    assert "val.txt:2" in str(caught.value)


def test_a_thousand_wordnet_folders_are_labels_0_to_999(tmp_path):
    names = sorted(f"n{number:08d}" for number in np.random.default_rng(0).choice(10**8, 1000, replace=False))
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.JPEG").touch()
    images = open_images(tmp_path)
    assert images.labels.tolist() == list(range(1000))
    assert images.class_names == tuple(names)


def test_a_flat_folder_has_images_but_no_labels(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png")
    with pytest.raises(UserError, match="one folder a class"):
        open_images(tmp_path)
    images = open_images(tmp_path, labels="agree")
    assert images.paths == ("1.png", "2.png")
    assert images.labels is None
    assert images.class_names is None


def test_agreed_labels_take_images_at_any_depth_whatever_the_layout(folders):
    save(folders / "loose.png")
    images = open_images(folders, labels="agree")
    assert len(images) == 8
    assert images.labels is None


def test_images_beside_class_folders_belong_to_no_class(folders):
    save(folders / "loose.png")
    assert "loose.png" not in open_images(folders).paths


def test_a_class_map_replaces_the_sorted_order(folders):
    table = folders.parent / "map.json"
    table.write_text(json.dumps({"a": 7, "b": 2, "c": 7, "unused": 3}))
    images = open_images(folders, class_map=table)
    assert images.labels.tolist() == [7, 7, 2, 2, 2, 2, 7]
    assert images.class_names == ("0", "1", "b", "unused", "4", "5", "6", "a|c")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": 0, "b": 1}', "not in the class map"),
        ('{"a": 0, "b": 1, "c": "2"}', "label of 'c' is '2'"),
        ('{"a": 0, "b": true, "c": 2}', "label of 'b' is True"),
        ('{"a": 0, "b": -1, "c": 2}', "label of 'b' is -1"),
        ("[1, 2]", "not a class map"),
        ('{\n"a": 0,,', "map.json:2: is not JSON"),
        (None, "cannot be read"),
        ('{"cat": 1000000000}', "give an integer from 0 to 999999"),
        ('{"cat": ' + "9" * 5000 + "}", "is not a class map"),
        ("[" * 100_000, "is not a class map"),
    ],
)
def test_a_wrong_class_map_is_named(folders, content, fault):
    table = folders.parent / "map.json"
    table.unlink(missing_ok=True)
    if content is not None:
        table.write_text(content)
    with pytest.raises(UserError, match=fault):
        open_images(folders, class_map=table)


def test_a_class_map_needs_class_folders(tmp_path):
    save(tmp_path / "1.png")
    table = tmp_path / "map.json"
    table.write_text("{}")
    with pytest.raises(UserError, match="no class folders to map"):
        open_images(tmp_path, class_map=table)
    with pytest.raises(UserError, match="take no class map"):
        open_images(tmp_path, labels="agree", class_map=table)


def test_missing_empty_and_wrong_paths_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_images(tmp_path / "gone")
    with pytest.raises(UserError, match="is a file"):
        open_images(save(tmp_path / "x" / "1.png"))
    (tmp_path / "empty" / "class").mkdir(parents=True)
    (tmp_path / "empty" / "class" / "a.gif").touch()
    with pytest.raises(UserError, match=r"no images in .*supported: \.jpg \.jpeg \.png"):
        open_images(tmp_path / "empty")
    with pytest.raises(UserError, match="no images in"):
        open_images(tmp_path / "empty", labels="agree")


def test_links_are_followed_but_loops_end(tmp_path):
    store = tmp_path / "store"
    save(store / "1.png")
    root = tmp_path / "root"
    save(root / "a" / "0.png")
    (root / "b").symlink_to(store)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    (root / "a" / "dead.png").symlink_to(tmp_path / "gone.png")
    images = open_images(root)
    assert images.paths == ("a/0.png", "a/dead.png", "a/self.png", "a/up/b/1.png", "b/1.png")
    assert images.sizes[images.paths.index("a/dead.png")] == -1
    assert len(open_images(root, labels="agree")) == len(set(open_images(root, labels="agree").paths))
    with pytest.raises(BrokenImage, match="no such file"):
        decode_image(root / "a" / "dead.png")
    with pytest.raises(BrokenImage, match="symbolic links"):
        decode_image(root / "a" / "self.png")


def test_the_fingerprint_follows_names_sizes_and_labels(folders):
    before = open_images(folders)
    assert open_images(folders).fingerprint == before.fingerprint
    assert before.subset([0, 1]).fingerprint != before.fingerprint
    with (folders / "a" / "x.bmp").open("ab") as grown:
        grown.write(b"!")
    changed = open_images(folders).fingerprint
    assert changed != before.fingerprint
    (folders / "a" / "x.bmp").rename(folders / "a" / "z.bmp")
    assert open_images(folders).fingerprint not in {changed, before.fingerprint}
    table = folders.parent / "map.json"
    table.write_text('{"a": 1, "b": 0, "c": 2}')
    assert open_images(folders, class_map=table).fingerprint != open_images(folders).fingerprint


def test_a_limit_takes_as_many_of_each_class_as_of_any_other(tmp_path):
    for label, count in {"a": 10, "b": 10, "c": 2}.items():
        for index in range(count):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{index}.png").touch()

    def counts(limit: int, seed: int = 0) -> list[int]:
        return np.bincount(open_images(tmp_path, limit=limit, seed=seed).labels, minlength=3).tolist()

    assert counts(3) == [1, 1, 1]
    assert counts(6) == [2, 2, 2]
    assert counts(12) == [5, 5, 2]
    assert counts(22) == counts(1000) == [10, 10, 2]
    assert sorted(counts(7)) == [2, 2, 3]
    smaller, larger = (set(open_images(tmp_path, limit=limit).paths) for limit in (5, 14))
    assert smaller < larger
    assert open_images(tmp_path, limit=8, seed=1).paths != open_images(tmp_path, limit=8).paths
    assert open_images(tmp_path, limit=8).paths == tuple(sorted(open_images(tmp_path, limit=8).paths))
    with pytest.raises(UserError, match="at least 1"):
        open_images(tmp_path, limit=0)


def test_the_draw_depends_on_seed_and_names_not_on_other_classes(tmp_path):
    for label in "ab":
        for index in range(20):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{index}.png").touch()
    of_a = {path for path in open_images(tmp_path, limit=10).paths if path.startswith("a/")}
    for index in range(20, 40):
        (tmp_path / "b" / f"{index}.png").touch()
    assert {path for path in open_images(tmp_path, limit=10).paths if path.startswith("a/")} == of_a


def test_a_limit_of_a_flat_folder_is_a_seeded_subset(tmp_path):
    for index in range(20):
        (tmp_path / f"{index}.png").touch()
    first = open_images(tmp_path, labels="agree", limit=5, seed=3)
    assert first.paths == open_images(tmp_path, labels="agree", limit=5, seed=3).paths
    assert len(first) == 5


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    upright = Image.new("RGB", (40, 20), "black")
    upright.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to see it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95)
    decoded = decode_image(tmp_path / "x.jpg")
    assert decoded.size == (40, 20)
    assert np.abs(np.asarray(decoded, float) - np.asarray(upright)).mean() < 5


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_an_image_is_that_of_its_upright_pixels(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (7, 3)).save(path, exif=exif)
    assert image_size(path) == decode_image(path).size == ((3, 7) if orientation > 4 else (7, 3))


def test_the_size_of_what_is_no_image_is_refused_as_the_image_is(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name, reason in (("text.png", "not an image"), ("empty.png", "empty file"), ("gone.png", "no such file")):
        for read in (image_size, decode_image):
            with pytest.raises(BrokenImage, match=reason):
                read(tmp_path / name)


def test_transparency_is_laid_on_white(tmp_path):
    half = np.zeros((2, 2, 4), np.uint8)
    half[0] = (255, 0, 0, 255)
    half[1, 0] = (0, 0, 0, 0)
    half[1, 1] = (0, 0, 0, 128)
    Image.fromarray(half).save(tmp_path / "rgba.png")
    decoded = np.asarray(decode_image(tmp_path / "rgba.png"))
    assert decoded.tolist() == [[[255, 0, 0], [255, 0, 0]], [[255, 255, 255], [127, 127, 127]]]
    Image.fromarray(half).convert("LA").save(tmp_path / "la.png")
    assert np.asarray(decode_image(tmp_path / "la.png"))[1, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(decode_image(tmp_path / "p.png")).tolist() == [[[255, 255, 255], [0, 200, 0]]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_every_common_mode_becomes_the_same_rgb(tmp_path, mode):
    grey = np.repeat(np.array([[0, 255], [255, 0]], np.uint8), 8, axis=0).repeat(8, axis=1)
    image = Image.fromarray(grey).convert("RGB").convert(mode)
    suffix = "tiff" if mode in {"CMYK", "YCbCr"} else "png"
    image.save(tmp_path / f"x.{suffix}")
    decoded = decode_image(tmp_path / f"x.{suffix}")
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded, int) - grey[..., None]).max() <= 1


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("RGB", (16, 16), (250, 250, 250)).convert("CMYK").save(tmp_path / "x.jpg")
    assert np.asarray(decode_image(tmp_path / "x.jpg")).mean() > 230


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_not_cut(tmp_path, suffix):
    values = np.array([[0, 128, 255, 256], [257, 32768, 65000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    decoded = np.asarray(decode_image(tmp_path / f"x.{suffix}"))
    assert np.array_equal(decoded[..., 0], np.floor(values / 257 + 0.5))
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_values_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 3.5]], np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(BrokenImage, match="floating point"):
        decode_image(tmp_path / "f.tiff")
    Image.fromarray(np.array([[0, 1_000_000]], np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(BrokenImage, match="32 bits"):
        decode_image(tmp_path / "i.tiff")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "ppm"])
def test_a_truncated_image_is_broken_and_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{suffix}")
    whole = (tmp_path / f"x.{suffix}").read_bytes()
    (tmp_path / f"x.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenImage) as caught:
        decode_image(tmp_path / f"x.{suffix}")
    assert caught.value.where == str(tmp_path / f"x.{suffix}")
    assert caught.value.what


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"hello", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "broken PNG|not an image")],
    ids=["empty", "text", "PNG header"],
)
def test_what_is_no_image_is_broken(tmp_path, content, reason):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BrokenImage, match=reason):
        decode_image(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp"])
def test_no_damage_makes_anything_but_an_image_or_a_broken_image(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(150):
        harmed = bytearray(whole)
        for place in rng.integers(0, min(len(harmed), 200), 4):
            harmed[place] = int(rng.integers(256))
        path.write_bytes(bytes(harmed))
        try:
            assert decode_image(path).mode == "RGB"
        except BrokenImage:
            broken += 1
    assert broken


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "x.png", size=(50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BrokenImage, match="decompression bomb"):
        decode_image(tmp_path / "x.png")


def many(folder: Path, good: int, broken: int) -> Path:
    (folder / "a").mkdir()
    for index in range(good):
        save(folder / "a" / f"{index:04d}.png")
    for index in range(broken):
        (folder / "a" / f"broken{index}.png").write_bytes(b"x")
    return folder


@pytest.mark.parametrize(("good", "broken", "allowed"), [(9, 1, True), (8, 2, False), (298, 2, True), (197, 3, False)])
def test_one_image_or_one_percent_may_be_broken(tmp_path, capsys, good, broken, allowed):
    images = open_images(many(tmp_path, good, broken))
    if not allowed:
        with pytest.raises(UserError, match=rf"{broken} of {good + broken} images cannot be read, first a/broken0"):
            scan(images, Console())
        return
    kept, named = scan(images, Console())
    assert len(kept) == good
    assert named == tuple((f"a/broken{index}.png", "not an image") for index in range(broken))
    assert kept.fingerprint != images.fingerprint
    assert kept.labels is not None
    assert len(kept.labels) == good
    assert capsys.readouterr().err.count(".png: not an image; skipped") == broken


def test_an_error_names_the_first_five_broken_images(tmp_path):
    with pytest.raises(UserError) as caught:
        scan(open_images(many(tmp_path, 5, 7)), Console())
    assert "broken4" in str(caught.value)
    assert "broken5" not in str(caught.value)


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(UserError, match="1 of 1 images"):
        scan(open_images(many(tmp_path, 0, 1)), Console())


def test_images_whole_are_all_kept(folders):
    images = open_images(folders)
    kept, broken = scan(images, Console())
    assert broken == ()
    assert kept.paths == images.paths
    assert kept.fingerprint == images.fingerprint


def test_reading_folders_does_not_import_torch():
    code = "import sys, vtk_cli.data.images; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
