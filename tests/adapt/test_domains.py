from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.adapt.drawn_domains import class_tree, draw_images
from vtk_cli.adapt.digits_domains import part_digits
from vtk_cli.adapt.domains import Domains, find_unreadable, open_domains
from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


def opened(source: Path | str, target: Path | str, **more: object) -> Domains:
    return open_domains(str(source), str(target), console=QUIET, **more)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return class_tree(tmp_path / "source", ["bike", "cup", "pen"])


def names_by_id(domains: Domains) -> dict[str, str]:
    return {name: domains.class_names[label] for name, label in domains.truth.items()}


def test_no_digit_is_in_two_parts_and_none_of_the_validation_split_is_learnt_from() -> None:
    for seed in range(3):
        parts = part_digits(seed)
        assert [len(part) for part in parts] == [600, 800, 397]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
        assert set(load_digits_split("val").ids) <= set(parts[2])
    assert not np.array_equal(part_digits(0)[0], part_digits(1)[0])


def test_digits_are_adapted_to_digits_m() -> None:
    domains = opened("digits", "digits-m", seed=1)
    source, pool, test = part_digits(1)
    assert domains.source is not None
    assert domains.test is not None
    assert list(domains.source.names) == [f"digits/{one:06d}" for one in source]
    assert list(domains.pool.ids) == [f"digits-m/{one:06d}" for one in pool]
    assert list(domains.test.names) == [f"digits-m/{one:06d}" for one in test]
    train, val = (load_digits_split(split) for split in ("train", "val"))
    label = dict(zip([*train.ids, *val.ids], [*train.labels, *val.labels], strict=True))
    assert list(domains.truth.values()) == [label[one] for one in pool]
    assert domains.source.targets.tolist() == [label[one] for one in source]
    plain = opened("digits", "digits").pool
    assert np.abs(np.asarray(plain.read(0), int) - np.asarray(domains.pool.image(domains.pool.ids[0]), int)).max() > 50


def test_the_same_domain_twice_has_the_same_images() -> None:
    domains = opened("digits", "digits")
    assert domains.source is not None
    assert tuple(domains.source.names) == domains.pool.ids
    assert domains.source.targets.tolist() == list(domains.truth.values())


def test_class_folders_map_by_name_not_by_order(source: Path, tmp_path: Path) -> None:
    target = class_tree(tmp_path / "target", ["cup", "pen"])
    domains = opened(source, target)
    assert domains.class_names == ("bike", "cup", "pen")
    assert domains.pool.ids == tuple(f"{name}/{number}.png" for name in ("cup", "pen") for number in range(3))
    assert names_by_id(domains) == {name: name.split("/")[0] for name in domains.pool.ids}
    assert domains.is_labelled


def test_a_flat_folder_is_a_target_without_labels(source: Path, tmp_path: Path) -> None:
    target = draw_images(tmp_path / "flat", ["b.png", "a.png", "c.png"])
    domains = opened(source, target)
    assert domains.pool.ids == ("a.png", "b.png", "c.png")
    assert not domains.truth
    assert not domains.is_labelled
    with pytest.raises(UserError, match="3 of 3 source images have no label"):
        opened(target, source)


def test_labels_of_a_target_can_be_left_unread(source: Path, tmp_path: Path) -> None:
    target = class_tree(tmp_path / "target", ["2024-01", "2024-02"])
    with pytest.raises(UserError, match="2 classes of the target are not in the source: 2024-01, 2024-02"):
        opened(source, target)
    domains = opened(source, target, ignore_target_labels=True)
    assert len(domains.pool) == 6
    assert not domains.truth


def test_a_line_of_a_list_ends_in_its_label_and_paths_may_have_blanks(source: Path, tmp_path: Path) -> None:
    class_tree(tmp_path / "Real World", ["bike", "cup", "pen"], 2)
    lines = [f"Real World/{name}/{n}.png {label}" for label, name in enumerate(["bike", "cup", "pen"]) for n in (0, 1)]
    (tmp_path / "list.txt").write_text("\n".join(reversed(lines)) + "\n")
    domains = opened(source, tmp_path / "list.txt")
    assert domains.pool.ids[0] == "Real World/bike/0.png"
    assert names_by_id(domains) == {name: name.split("/")[1] for name in domains.pool.ids}
    rooted = opened(tmp_path / "list.txt", tmp_path / "list.txt", root=tmp_path)
    assert rooted.class_names == ("bike", "cup", "pen")
    assert rooted.pool.image("Real World/cup/1.png").size == (8, 6)


def test_numbers_without_names_are_held_against_the_range(source: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "all", ["a.png", "b.png"])
    (tmp_path / "list.txt").write_text("all/a.png 2\nall/b.png 0\n")
    assert names_by_id(opened(source, tmp_path / "list.txt")) == {"all/a.png": "pen", "all/b.png": "bike"}
    (tmp_path / "list.txt").write_text("all/a.png 3\nall/b.png 0\n")
    with pytest.raises(UserError, match=r"label 3 of all/a\.png is out of range"):
        opened(source, tmp_path / "list.txt")


def test_absolute_paths_are_named_relative_to_the_root_and_none_leads_out_of_it(source: Path, tmp_path: Path) -> None:
    flat = draw_images(tmp_path / "flat", ["a.png", "b.png"])
    listed = tmp_path / "list.txt"
    listed.write_text(f"{flat}/a.png 0\n{flat}/b.png 1\n")
    assert opened(source, listed, root=flat).pool.ids == ("a.png", "b.png")
    listed.write_text("../elsewhere.png 0\na.png 1\n")
    with pytest.raises(UserError, match=r"list\.txt:1: \.\./elsewhere\.png is not in .*--root"):
        opened(source, listed, root=flat)


def test_a_list_without_labels_is_a_target(source: Path, tmp_path: Path) -> None:
    draw_images(tmp_path, ["my a.png", "b.png"])
    (tmp_path / "list.txt").write_text("my a.png\nb.png\n")
    domains = opened(source, tmp_path / "list.txt")
    assert domains.pool.ids == ("b.png", "my a.png")
    assert not domains.truth


def test_a_csv_file_has_names_and_parts(source: Path, tmp_path: Path) -> None:
    draw_images(tmp_path, [f"{name}.png" for name in "abcd"])
    table = tmp_path / "target.csv"
    table.write_text("path,label,split\na.png,pen,train\nb.png,bike,train\nc.png,cup,test\nd.png,,train\n")
    domains = opened(source, table)
    assert domains.pool.ids == ("a.png", "b.png", "d.png")
    assert names_by_id(domains) == {"a.png": "pen", "b.png": "bike"}
    assert not domains.is_labelled
    assert domains.test is not None
    assert (domains.test.names, domains.test.targets.tolist()) == (("c.png",), [1])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "file,label\na.png,pen\n", r"t\.csv:1: has the columns file, label; write path"),
        ("t.csv", "path,label\na.png,pen\na.png,cup\n", r"t\.csv:3: a\.png has two labels: pen \(line 2\) and cup"),
        ("t.csv", "path,split\na.png,dev\n", r"t\.csv:2: unknown split 'dev'"),
        ("t.csv", "path,label\n,pen\n", r"t\.csv:2: a row has no path"),
        ("t.csv", f'path\na.png\n"{"x" * 200_000}"\n', r"t\.csv:[23]: is no CSV table"),
        ("t.txt", "a.png 0\nb.png x\n", r"t\.txt:2: is not `path label`: b\.png x"),
        ("t.txt", "a.png 0\na.png 1\n", r"t\.txt:2: a\.png has two labels: 0 \(line 1\) and 1"),
        ("t.txt", "\n\n", r"t\.txt: lists no images"),
        ("t.csv", "path,label\na.png,bycicle\nb.png,pen\n", "not in the source: bycicle; did you mean bike"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_its_line(source: Path, tmp_path: Path, name: str, text: str, said: str) -> None:
    draw_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        opened(source, tmp_path / name)


def test_office_31_has_its_classes_below_images(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "office31"
    for name in ("amazon", "dslr", "webcam"):
        class_tree(root / name / "images", ["bike", "pen"])
    domains = opened(root / "amazon", root / "webcam")
    assert domains.class_names == ("bike", "pen")
    assert domains.pool.ids[0] == "bike/0.png"
    with pytest.raises(
        UserError, match=r"holds the domains amazon, dslr, webcam of Office-31; name one, e\.g\. .*amazon"
    ):
        opened(root, source)
    with pytest.raises(UserError, match="did you mean webcam"):
        opened(root / "amazon", root / "webcan")


def test_office_home_and_domainnet_are_folders_of_domains(tmp_path: Path) -> None:
    for root, names in (("home", ["Art", "Clipart", "Product", "Real World"]), ("net", ["clipart", "real", "sketch"])):
        for name in names:
            class_tree(tmp_path / root / name, ["bike", "pen"])
    assert len(opened(tmp_path / "home" / "Art", tmp_path / "home" / "Real World").pool) == 6
    with pytest.raises(UserError, match="Art, Clipart, Product, Real World of Office-Home"):
        opened(tmp_path / "home", tmp_path / "home" / "Art")
    with pytest.raises(UserError, match="clipart, real, sketch of DomainNet"):
        opened(tmp_path / "net", tmp_path / "net" / "real")


def test_the_list_files_of_domainnet_name_their_classes(tmp_path: Path) -> None:
    for domain in ("real", "sketch"):
        class_tree(tmp_path / domain, ["bike", "pen"], 2)
        lines = [f"{domain}/{name}/{n}.png {label}\n" for label, name in enumerate(["bike", "pen"]) for n in (0, 1)]
        (tmp_path / f"{domain}_train.txt").write_text("".join(lines[::2]))
        (tmp_path / f"{domain}_test.txt").write_text("".join(lines[1::2]))
    train, test = tmp_path / "sketch_train.txt", tmp_path / "sketch_test.txt"
    domains = opened(tmp_path / "real_train.txt", train, target_test=str(test))
    assert domains.class_names == ("bike", "pen")
    assert domains.test is not None
    assert domains.test.names == ("sketch/bike/1.png", "sketch/pen/1.png")


def test_a_class_called_train_is_no_split_of_visda(tmp_path: Path) -> None:
    root = tmp_path / "visda"
    for domain in ("train", "validation"):
        class_tree(root / domain, ["aeroplane", "train", "truck"])
    domains = opened(root / "train", root / "validation")
    assert domains.class_names == ("aeroplane", "train", "truck")
    assert len(domains.pool) == 9
    with pytest.raises(UserError, match="holds the domains train, validation of VisDA-2017"):
        opened(root, root / "validation")


@pytest.mark.parametrize("held_out", ["val", "validation", "test"])
def test_a_target_with_train_and_val_is_tested_on_val(source: Path, tmp_path: Path, held_out: str) -> None:
    target = tmp_path / "mine"
    class_tree(target / "train", ["bike", "cup"])
    class_tree(target / held_out, ["cup"])
    domains = opened(source, target)
    assert domains.pool.ids[0] == "bike/0.png"
    assert domains.test is not None
    assert domains.test.targets.tolist() == [1, 1, 1]


def test_images_to_test_on_may_not_be_in_the_pool(source: Path, tmp_path: Path) -> None:
    target = class_tree(tmp_path / "target", ["bike", "cup"])
    (tmp_path / "test.csv").write_text("path,label\n" + "".join(f"target/cup/{n}.png,cup\n" for n in range(3)))
    with pytest.raises(UserError, match=r"3 images to test on are in the target as well"):
        opened(source, target, target_test=str(tmp_path / "test.csv"))


def test_unreadable_images_are_named_and_left_out(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = class_tree(tmp_path / "target", ["bike", "cup"])
    (target / "cup" / "1.png").write_bytes(b"no image")
    (source / "pen" / "0.png").write_bytes(b"")
    domains = opened(source, target)
    broken = find_unreadable(domains, QUIET)
    assert [(one.part, one.sample_id) for one in broken] == [("source", "pen/0.png"), ("target", "cup/1.png")]
    assert "1 of 6 images cannot be read and are left out: cup/1.png" in capsys.readouterr().err
    left = domains.without(broken)
    assert left.source is not None
    assert "cup/1.png" not in left.pool.ids
    assert "cup/1.png" not in left.truth
    assert (len(left.source), len(left.pool)) == (8, 5)
    assert left.pool.image("cup/2.png").getpixel((0, 0)) == domains.pool.image("cup/2.png").getpixel((0, 0))


def test_a_list_with_the_wrong_root_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nowhere/a.png 0\nnowhere/b.png 1\n")
    with pytest.raises(UserError, match=r"none of the 2 images of the target can be read.*--root"):
        find_unreadable(opened(source, tmp_path / "list.txt"), QUIET)


def test_one_image_is_no_target(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 target images are too few"):
        opened(source, draw_images(tmp_path / "flat", ["a.png"]))


def test_without_a_source_the_class_names_come_from_elsewhere(tmp_path: Path) -> None:
    target = class_tree(tmp_path / "target", ["bike", "cup"])
    domains = open_domains(None, str(target), console=QUIET, class_names=("cup", "bike"))
    assert domains.source is None
    assert domains.truth["bike/0.png"] == 1
    with pytest.raises(UserError, match="there are no class names"):
        open_domains(None, str(target), console=QUIET)


def test_a_data_set_that_is_not_there_is_named(source: Path) -> None:
    with pytest.raises(UserError, match="did you mean digits"):
        opened(source, "digts")
    with pytest.raises(UserError, match="no such"):
        opened(source, "/nowhere/at/all")


def test_numbers_in_a_list_mean_the_classes_that_are_called_so(tmp_path: Path) -> None:
    source = class_tree(tmp_path / "source", ["3", "5", "7"])
    draw_images(tmp_path / "all", ["a.png", "b.png"])
    (tmp_path / "list.txt").write_text("all/a.png\t7\nall/b.png 3\n")
    assert names_by_id(opened(source, tmp_path / "list.txt")) == {"all/a.png": "7", "all/b.png": "3"}
    (tmp_path / "list.txt").write_text("all/a.png 1\nall/b.png 3\n")
    with pytest.raises(UserError, match="1 classes of the target are not in the source: 1"):
        opened(source, tmp_path / "list.txt")


def test_a_folder_called_digits_does_not_hide_the_embedded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_tree(tmp_path / "digits", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    domains = opened("digits", "digits-m")
    assert len(domains.pool) == 800
    assert find_unreadable(domains, QUIET) == ()
    assert opened("./digits", "./digits").class_names == ("a", "b")
