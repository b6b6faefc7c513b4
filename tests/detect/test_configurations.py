from __future__ import annotations

import json

import pytest

from vtk_cli.detect.configurations import BACKBONES, DETECTORS, config_from_json, config_to_json, detector_config
from vtk_cli.errors import UserError


@pytest.mark.parametrize("name", DETECTORS)
def test_a_configuration_survives_json(name: str) -> None:
    config = detector_config(name, 5, token_offset=0)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize("damage", [{"queries": [3]}, {"surprise": 1}, {"backbone": None}, {"backbone": {"name": "x"}}])
def test_a_damaged_configuration_is_refused(damage: dict[str, object]) -> None:
    values = json.loads(json.dumps(config_to_json(detector_config("vidt-micro", 5))))
    with pytest.raises(ValueError, match="no detector configuration"):
        config_from_json(values | damage)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="vidt-plus-nano"):
        detector_config("vidt-plus-nanno", 5)


def test_published_sizes_differ_from_vidt_plus_as_published() -> None:
    for size in BACKBONES:
        plain, plus = detector_config(f"vidt-{size}", 91), detector_config(f"vidt-plus-{size}", 91)
        assert plain.backbone is plus.backbone
        assert (plain.neck, plus.neck) == ("projection", "epff")
        assert plus.iou_aware
        assert plus.token_labels
        assert plain.box_only() == plain
    assert detector_config("vidt-nano", 91).queries == 100
    assert detector_config("vidt-plus-nano", 91).queries == 300
    assert detector_config("vidt-plus-nano", 91).mask_coefficients == 256


def test_a_width_doubles_with_every_stage() -> None:
    assert BACKBONES["nano"].widths == (48, 96, 192, 384)


def test_the_token_head_has_a_channel_for_any_object() -> None:
    assert detector_config("vidt-plus-micro", 10).token_channels == 11
    assert detector_config("vidt-plus-nano", 91, token_offset=0).token_channels == 91
