from __future__ import annotations

from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from vtk_cli.errors import UserError
from vtk_cli.models.names import parse_network
from vtk_cli.similarity.features import (
    FEATURE_NAMES,
    ArchitectureFeatures,
    architecture_features,
    difference_vector,
    features_in,
    read_features,
    write_features,
)

KNOWN = {
    "resnet50": "CNN|Yes|7s2|224 x 224|BN|ReLU|Yes|GAP|No|No|~|No|No",
    "resnext50_32x4d": "CNN|Yes|7s2|224 x 224|BN|ReLU|Yes|GAP|No|No|~|No|Yes",
    "seresnet50": "CNN|Yes|7s2|224 x 224|BN|ReLU|Yes|GAP|No|Yes (SE)|End|No|No",
    "botnet26t_256": "CNN|Yes|3s2/3/3|256 x 256|BN|ReLU|Yes|GAP|Yes (BoT)|No|~|No|No",
    "eca_halonext26ts": "CNN|Yes|3s2/3/3|256 x 256|BN|SiLU|Yes|GAP|Yes (Halo)|Yes (ECA)|Middle|No|Yes",
    "resnest50d": "CNN|Yes|3s2/3/3|224 x 224|BN|ReLU|Yes|GAP|No|Yes|~|No|Yes",
    "convnext_tiny": "CNN|Yes|4s4|224 x 224|LN|GeLU|No|GAP|No|No|~|Yes|No",
    "efficientnet_b2": "NAS (CNN)|Yes|3s2|256 x 256|BN|SiLU|No|GAP|No|Yes (SE)|Middle|Yes|No",
    "regnety_032": "NAS (CNN)|Yes|3s2|224 x 224|BN|ReLU|No|GAP|No|Yes (SE)|Middle|No|Yes",
    "nfnet_l0": "CNN|Yes|3s2/3/3/3s2|224 x 224|Norm-free|ReLU + SiLU|No|GAP|No|Yes (SE)|End|No|Yes",
    "vit_small_patch16_224": "Transformer|No|16s16|224 x 224|LN|GeLU|No|CLS token|No|No|~|No|No",
    "swin_tiny_patch4_window7_224": "Transformer|Yes|4s4|224 x 224|LN|GeLU|No|GAP|No|No|~|No|No",
    "swin_s3_tiny_224": "NAS (TFM)|Yes|4s4|224 x 224|LN|GeLU|No|GAP|No|No|~|No|No",
    "resmlp_24_224": "MLP-Mixer|No|16s16|224 x 224|Affine transform|GeLU|No|GAP|No|No|~|No|No",
    "xcit_tiny_12_p8_224": "Hybrid|No|3s2/3s2/3s2|224 x 224|LN + BN|GeLU|No|CLS token|No|No|~|Yes|No",
    "vit_small_r26_s32_224": "Hybrid|No|7s2|224 x 224|LN + GN|GeLU + ReLU|Yes|CLS token|No|No|~|No|No",
}
"""What the papers of these networks say of them, in the order of `FEATURE_NAMES`."""

RESNET = ArchitectureFeatures(*KNOWN["resnet50"].split("|"))


@pytest.mark.parametrize("name", KNOWN)
def test_the_thirteen_components_are_read_off_the_network(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    size = timm.models.get_pretrained_cfg(name).input_size[-1]
    assert "|".join(astuple(architecture_features(network, name, size))) == KNOWN[name]


def test_the_published_names_are_thirteen_in_the_order_of_the_fields() -> None:
    assert len(FEATURE_NAMES) == len(fields(ArchitectureFeatures)) == 13


def test_the_difference_vector_marks_exactly_the_components_that_differ() -> None:
    for index, field in enumerate(fields(ArchitectureFeatures)):
        expected = np.zeros(13, dtype=int)
        expected[index] = 1
        other = replace(RESNET, **{field.name: "another"})
        assert np.array_equal(difference_vector(RESNET, other), expected)
        assert np.array_equal(difference_vector(other, RESNET), expected)
    assert not difference_vector(RESNET, RESNET).any()


def test_spelling_and_the_order_of_several_kinds_do_not_make_a_difference() -> None:
    ours = replace(RESNET, normalization="LN + BN", self_attention_2d="Yes (Halo, BoT)", stem="3s2/3")
    theirs = replace(RESNET, normalization="bn+LN", self_attention_2d="Yes (BoT,Halo)", stem="3s2/3", activation="relu")
    assert not difference_vector(ours, theirs).any()
    assert difference_vector(replace(ours, stem="3s2/3"), replace(ours, stem="3/3s2"))[2] == 1


def test_features_survive_a_round_trip_through_a_file(tmp_path: Path) -> None:
    table = {name: ArchitectureFeatures(*text.split("|")) for name, text in KNOWN.items()}
    table["lamhalobotnet50ts_256"] = replace(RESNET, self_attention_2d="Yes (Lambda, Halo, BoT)")
    write_features(tmp_path / "features.csv", table)
    assert read_features(tmp_path / "features.csv") == table


def test_a_byte_order_mark_spaces_and_other_columns_are_accepted(tmp_path: Path) -> None:
    names = [" Model name", *(f" {name.upper()} " for name in reversed(FEATURE_NAMES)), "Remark"]
    values = ["resnet50", *(f" {value} " for value in reversed(astuple(RESNET))), "the classic"]
    file = tmp_path / "features.csv"
    file.write_text("\ufeff" + ",".join(names) + "\r\n\r\n" + ",".join(values) + "\r\n", encoding="utf-8")
    assert read_features(file) == {"resnet50": RESNET}


def test_a_faulty_file_is_one_line_that_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "features.csv"
    header = ",".join(["Model name", *FEATURE_NAMES])
    row = ",".join(["resnet50", *astuple(RESNET)])
    for text, message in {
        "": "holds no network",
        header: "holds no network",
        f"{header.replace('Stem layer', 'Stem')}\n{row}": f"{file}:1: no column 'Stem layer'",
        f"{header}\n{row}\n{row}": f"{file}:3: resnet50 occurs twice",
        f"{header}\n{row},more": f"{file}:2: has 15 columns, the first line 14",
        f"{header}\n\n{row.replace('7s2', '')}": f"{file}:3: no value for 'Stem layer'",
        f"{header}\n{row.replace('resnet50', '')}": f"{file}:2: no value for 'Model name'",
    }.items():
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            read_features(file)
        assert message in str(caught.value)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_features(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_features(tmp_path / "none.csv")


def test_a_network_is_found_in_a_table_by_its_label_its_timm_name_or_its_published_name() -> None:
    other = replace(RESNET, stem="3s2")
    assert features_in({"vit_b": RESNET, "vit_base_patch16_224": other}, parse_network("vit_b")) is RESNET
    assert features_in({"vit_base_patch16_224": other}, parse_network("vit_b")) is other
    assert features_in({"jx_nest_tiny": RESNET}, parse_network("nest_t")) is RESNET
    assert features_in({"gluon_xception65": RESNET}, parse_network("xception65.tf_in1k")) is RESNET
    assert features_in({"resnet50": RESNET}, parse_network("resnet101")) is None
