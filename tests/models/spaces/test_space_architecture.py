"""Architectures as words and files: what is written is read back, foreign forms are understood, wrong ones refused."""

from __future__ import annotations

import json

import pytest

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.architecture import (
    Architecture,
    parse_architecture,
    read_architecture,
    write_architecture,
)
from vtk_cli.models.spaces.catalog import RELEASED, SPACES, space_named
from vtk_cli.models.spaces.genotypes import genotype_of


@pytest.mark.parametrize("name", SPACES)
def test_a_file_gives_back_the_architecture_and_its_shape(tmp_path, rng, name):
    space = space_named(name)
    written = Architecture(space, space.sample(rng), found={"score": {"flatness": 0.5}})
    shape = written.shape(classes=7)
    write_architecture(tmp_path / "a.json", written, shape)
    read = read_architecture(tmp_path / "a.json")
    assert (read.space, read.genes, read.shape(), dict(read.found)) == (space, written.genes, shape, written.found)


def test_a_file_tells_the_cost_of_the_network(tmp_path):
    found = parse_architecture("genas-flatness-cifar100")
    write_architecture(tmp_path / "a.json", found, found.shape(classes=1000))
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["flops"] == pytest.approx(579.473e6, abs=500)
    assert (content["width"], content["cells"], content["form"]) == (46, 14, "imagenet")


@pytest.mark.parametrize("name", RELEASED)
def test_published_names_are_architectures_of_their_space(name):
    space, released = RELEASED[name]
    found = parse_architecture(name.replace("-", "_").upper())
    assert (found.space, found.genes, found.form, found.width) == (space, released.genes, released.form, released.width)


def test_the_genotype_lists_of_darts_are_read(tmp_path):
    genes = RELEASED["genas-flatness-cifar10"][1].genes
    genotype = genotype_of(genes)
    (tmp_path / "a.json").write_text(json.dumps({"normal": genotype.normal, "reduce": genotype.reduce, "cells": 14}))
    found = read_architecture(tmp_path / "a.json")
    assert (found.genes, found.form) == (genes, "imagenet")


def test_strings_of_nasbench201_need_no_space(tmp_path):
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
    (tmp_path / "a.json").write_text(json.dumps(text))
    assert parse_architecture(text) == read_architecture(tmp_path / "a.json")
    assert parse_architecture(text).space.name == "nasbench201"


def test_a_list_of_genes_tells_its_space_by_its_length(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([0] * 20))
    assert read_architecture(tmp_path / "a.json").space.name == "shufflenetv2"


def test_another_form_of_network_takes_its_own_size():
    found = parse_architecture("genas-flatness-cifar100")
    assert found.shape(form="cifar").cells == 20
    assert found.shape(form="cifar").width == 36
    assert found.shape(width=8).width == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("3", "holds no architecture"),
        ('{"space": "dart", "genes": [1]}', "unknown search space 'dart'"),
        ('{"space": "darts", "genes": [1]}', "darts needs 28 genes in 0..7"),
        ('{"space": "chain-a", "genes": [1, 2, "3"]}', "no list of integers"),
        ('{"space": "chain-a", "genes": [1, 2, true]}', "no list of integers"),
        ('{"space": "chain-a"}', "has no genes"),
        ('{"genes": [1, 2, 3, 1, 2]}', "does not say of which space"),
        ('{"space": "chain-a", "genes": [1, 2, 3], "width": -1}', "its width is -1"),
        ('{"space": "chain-a", "genes": [1, 2, 3], "form": "big"}', "no networks of the form 'big'"),
        ('{"space": "shufflenetv2", "genes": [0], "cells": 2}', "shufflenetv2 needs 20 genes"),
        ('{"normal": [["sep_conv_3x3", 0]], "reduce": []}', "has 1 edges"),
    ],
)
def test_a_file_that_holds_none_is_named(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError) as refused:
        read_architecture(tmp_path / "a.json")
    assert said in refused.value.what
    assert refused.value.where == str(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "space", "said"),
    [
        ("no-such.json", None, "cannot be read"),
        ("genas-flatness-cifar1", None, "is no architecture"),
        ("1 2 3", None, "is no architecture"),
        ("genas-flatness-cifar10", "nasbench201", "is of darts, not of nasbench201"),
        ("1 2 9", "chain-a", "chain-a needs 3 genes in 0..3"),
    ],
)
def test_words_that_are_none_are_refused(text, space, said):
    with pytest.raises(UserError) as refused:
        parse_architecture(text, space)
    assert said in str(refused.value)
