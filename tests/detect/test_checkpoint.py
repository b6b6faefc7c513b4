from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vtk_cli.detect.checkpoint import load_detector, read_detector, save_detector, save_official
from vtk_cli.detect.configurations import Classes
from vtk_cli.errors import UserError

Make = Callable[..., Any]
ANIMALS = Classes(("cat", "dog", "cow"), (3, 7, 9))


def saved(network: Any, folder: Path, classes: Classes = ANIMALS) -> Path:
    path = folder / "model.safetensors"
    save_detector(path, network.state_dict(), network.config, classes, {"run": "a"})
    return path


@pytest.mark.parametrize("name", ["vidt-micro", "vidt-plus-micro", "vidt-neck-free-micro"])
def test_a_detector_comes_back_from_its_file(name: str, detector: Make, padded: Make, tmp_path: Path) -> None:
    network, batch = detector(name), padded((64, 96))
    found = read_detector(saved(network, tmp_path))
    assert (found.config, found.classes, found.metadata) == (network.config, ANIMALS, {"run": "a"})
    again = found.build()
    assert not again.training
    assert torch.equal(again(batch).final.logits, network(batch).final.logits)


def test_a_published_file_is_told_apart_by_what_is_in_it(detector: Make, tmp_path: Path) -> None:
    network = detector("vidt-nano", classes=91, queries=5)
    save_official(tmp_path / "vidt_nano_50.pth", network.state_dict(), network.config)
    found = read_detector(tmp_path / "vidt_nano_50.pth")
    assert found.config == network.config
    assert found.classes.names[90] == "toothbrush"
    assert found.classes.category_ids[90] == 90
    own = network.state_dict()
    assert all(torch.equal(found.state[name], own[name]) for name in own)
    content = torch.load(tmp_path / "vidt_nano_50.pth", weights_only=True)
    assert list(content) == ["model"]
    prefixed = {f"module.{name}": tensor for name, tensor in content["model"].items()}
    torch.save({"model": prefixed, "epoch": 49, "optimizer": {"state": {}}}, tmp_path / "checkpoint.pth")
    assert read_detector(tmp_path / "checkpoint.pth").config == network.config


def test_coco_weights_serve_data_with_some_of_cocos_classes(detector: Make, padded: Make, tmp_path: Path) -> None:
    """Whatever the ids and the order are there."""
    network, batch = detector("vidt-nano", classes=91, queries=5), padded((64, 96))
    save_official(tmp_path / "vidt_nano_50.pth", network.state_dict(), network.config)
    mine = detector("vidt-nano", classes=2, queries=5, seed=1)
    notes = load_detector(mine, read_detector(tmp_path / "vidt_nano_50.pth"), Classes(("dog", "person"), (5, 6)))
    assert notes == ["2 of its 91 classes are used"]
    expected = network(batch).final.logits[..., [18, 1]]
    torch.testing.assert_close(mine(batch).final.logits, expected)


def test_other_classes_need_a_new_head(detector: Make, tmp_path: Path) -> None:
    network = detector("vidt-plus-micro")
    found = read_detector(saved(network, tmp_path))
    birds = Classes(("wren", "crow", "tern"), (1, 2, 3))
    mine = detector("vidt-plus-micro", seed=1)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(UserError, match=r"3: cat, dog, cow.*3: wren, crow, tern.*--reset-head"):
        load_detector(mine, found, birds)
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.state_dict().items())
    assert load_detector(mine, found, birds, reset_head=True) == ["the classifier is new, for 3: wren, crow, tern"]
    own, theirs = mine.state_dict(), network.state_dict()
    for name, tensor in own.items():
        fresh = name.startswith(("heads.class_embed.", "token_head.classify."))
        assert torch.equal(tensor, before[name] if fresh else theirs[name]), name


@pytest.mark.parametrize("name", ["vidt-plus-micro", "vidt-neck-free-micro"])
def test_a_new_head_may_have_another_number_of_classes(name: str, detector: Make, tmp_path: Path) -> None:
    found = read_detector(saved(detector(name), tmp_path))
    mine = detector(name, classes=5, seed=1)
    five = Classes(("a", "b", "c", "d", "e"), (1, 2, 3, 4, 5))
    with pytest.raises(UserError, match="--reset-head"):
        load_detector(mine, found, five)
    load_detector(mine, found, five, reset_head=True)
    assert torch.equal(mine.backbone.det_token, found.state["backbone.det_token"])


def test_heads_of_training_may_come_or_go(detector: Make, tmp_path: Path) -> None:
    boxes = detector("vidt-plus-micro", iou_aware=False, token_labels=False)
    full = detector("vidt-plus-micro", mask_coefficients=6, seed=1)
    found = read_detector(saved(boxes, tmp_path))
    notes = load_detector(full, found, ANIMALS)
    assert notes == [
        f"{head} is not in the file and is new" for head in ("heads.iou_embed", "heads.vector_embed", "token_head")
    ]
    back = load_detector(boxes, read_detector(saved(full, tmp_path)), ANIMALS)
    assert back == [
        f"{head} of the file is left out" for head in ("heads.iou_embed", "heads.vector_embed", "token_head")
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("vidt-micro", {"queries": 9}), "queries 7, not 9"),
        (("vidt-plus-micro", {}), "neck projection, not epff"),
        (("vidt-micro", {"decoder_layers": 1}), "decoder layers 2, not 1"),
        (("vidt-micro", {"cross_stages": (2, 3)}), "cross stages 3, not 2, 3"),
        (("vidt-nano", {"dim": 64, "groups": 16, "decoder_layers": 2}), "backbone swin_micro, not swin_nano"),
    ],
)
def test_weights_of_another_size_are_refused(
    wanted: tuple[str, dict[str, Any]], words: str, detector: Make, tmp_path: Path
) -> None:
    found = read_detector(saved(detector("vidt-micro"), tmp_path))
    with pytest.raises(UserError, match=words):
        load_detector(detector(wanted[0], **wanted[1]), found, ANIMALS, reset_head=True)


def test_a_file_that_is_no_detector_is_refused(tmp_path: Path, detector: Make) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"fc.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(UserError, match="holds no detector"):
        read_detector(path)
    state = detector("vidt-micro").state_dict()
    for metadata, words in (
        ({"detector": "{", "classes": "{}"}, "describes no detector"),
        ({"detector": "{}", "classes": "{}"}, "describes no detector"),
    ):
        save_file(state, path, metadata)
        with pytest.raises(UserError, match=words):
            read_detector(path)


@pytest.mark.parametrize(
    "classes",
    [
        '{"names": ["a", "b"], "category_ids": [1, 2]}',
        '{"names": ["a", "b", "c"], "category_ids": [1]}',
        '{"names": 3}',
    ],
)
def test_classes_that_do_not_fit_the_detector_are_refused(classes: str, detector: Make, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = saved(detector("vidt-micro"), tmp_path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    save_file(load_file(path), path, {**metadata, "classes": classes})
    with pytest.raises(UserError, match=r"names 2 classes|describes no detector"):
        read_detector(path)


def test_weights_that_differ_from_their_description_are_refused(detector: Make, tmp_path: Path) -> None:
    network = detector("vidt-micro")
    other = detector("vidt-micro", queries=9)
    path = tmp_path / "model.safetensors"
    save_detector(path, other.state_dict(), network.config, ANIMALS)
    with pytest.raises(UserError, match="of another shape"):
        read_detector(path).build()
