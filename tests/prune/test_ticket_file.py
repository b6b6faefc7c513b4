from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vtk_cli.errors import JobError, UserError
from vtk_cli.prune.mask_bits import CODECS, Codec
from vtk_cli.prune.ticket import Layer, Origin, Ticket
from vtk_cli.prune.ticket_file import HEADER, MASK, REST, WEIGHTS, read_ticket, write_ticket

SHAPES = {"first": (4, 3, 2, 2), "second": (5, 4, 3, 3), "last": (1, 5, 3, 3)}


def ticket(**changes: Any) -> Ticket:
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in SHAPES.items()}
    masks["last"].fill_(True)
    layers = tuple(Layer(name, SHAPES[name], int(mask.sum()), name == "last") for name, mask in masks.items())
    made = Ticket(
        generator={"name": "dcgan-tiny", "image_size": 16, "channels": 1, "nz": 4, "ngf": 4},
        keep=Fraction(3, 10),
        scope="global",
        structure="none",
        algorithm="edge-popup",
        origin=Origin("seed", "signed-constant", 2**64 - 1, Fraction(1, 3)),
        layers=layers,
        masks=masks,
        rest={"bn.running_mean": torch.randn(5, generator=generator), "gain": torch.tensor(0.25)},
        weights_sha256="a" * 64,
        metrics={"FD(digits-cnn)": 20.1, "N": 2000},
        made_with={"vtk-cli": "0"},
    )
    return replace(made, **changes)


def rewrite(path: Path, change: Callable[[Any, Any], object], *, honest: bool = False) -> None:
    """Change the header and the arrays of a ticket; `honest` puts the right sums into it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members.pop(HEADER))
    change(header, members)
    if honest:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        header["sha256"] = {"weights": header["sha256"]["weights"], **sums}
        text = json.dumps(header, sort_keys=True, separators=(",", ":"))
        header["sha256"][HEADER] = hashlib.sha256(text.encode()).hexdigest()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(HEADER, json.dumps(header))
        for name, data in members.items():
            archive.writestr(name, data)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_ticket(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def assert_same(one: Ticket, other: Ticket) -> None:
    for name in ("masks", "rest"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    assert (one.kept_weights is None) == (other.kept_weights is None)
    if one.kept_weights is not None and other.kept_weights is not None:
        assert torch.equal(one.kept_weights, other.kept_weights)
    plain: dict[str, Any] = {"masks": {}, "rest": {}, "kept_weights": None}
    assert replace(one, **plain) == replace(other, **plain)


@pytest.mark.parametrize("codec", CODECS)
def test_a_ticket_comes_back_as_it_was(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "a.vtkt"
    size = write_ticket(path, ticket(), codec)
    assert size == path.stat().st_size
    assert_same(read_ticket(path), ticket())


def test_stored_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    count = sum(layer.kept for layer in ticket().layers)
    weights = torch.randn(count, generator=torch.Generator().manual_seed(1))
    weights[:2] = torch.tensor([-0.0, 1e-42])
    stored = ticket(origin=Origin("stored", init="kaiming-normal"), kept_weights=weights)
    write_ticket(tmp_path / "a.vtkt", stored)
    back = read_ticket(tmp_path / "a.vtkt")
    assert_same(back, stored)
    assert back.kept_weights is not None
    assert back.kept_weights.numpy().tobytes() == weights.numpy().tobytes()


def test_the_same_ticket_gives_the_same_bytes(tmp_path: Path) -> None:
    write_ticket(tmp_path / "a.vtkt", ticket())
    write_ticket(tmp_path / "b.vtkt", ticket())
    assert (tmp_path / "a.vtkt").read_bytes() == (tmp_path / "b.vtkt").read_bytes()


def test_the_file_can_be_read_with_a_zip_tool_json_and_numpy_alone(tmp_path: Path) -> None:
    write_ticket(tmp_path / "a.vtkt", ticket(), "raw")
    with zipfile.ZipFile(tmp_path / "a.vtkt") as archive:
        assert archive.testzip() is None
        header, mask, rest = json.loads(archive.read(HEADER)), archive.read(MASK), archive.read(REST)
    assert (header["format"], header["version"], header["codec"]) == ("vtk-ticket", 1, "raw")
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    start = 0
    for layer in header["layers"]:
        part = bits[start : start + layer["n"]].reshape(layer["shape"])
        assert np.array_equal(part, ticket().masks[layer["name"]].numpy())
        assert part.sum() == layer["kept"]
        start += layer["n"]
    assert not bits[start:].any()
    assert len(mask) == -(-start // 8)
    assert struct.unpack("<6f", rest) == (*ticket().rest["bn.running_mean"].tolist(), 0.25)


def test_any_flipped_bit_of_the_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.vtkt"
    write_ticket(path, ticket())
    whole, refused = path.read_bytes(), 0
    for place in range(0, 8 * len(whole), 13):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert_same(read_ticket(path), ticket())  # a bit of a date or of a right in the zip's directory
        except UserError:
            refused += 1
    assert refused > 0.8 * len(whole) * 8 / 13


def test_a_ticket_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vtkt"
    write_ticket(path, ticket())
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 37), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert "damaged or cut short" in refusal(path)


@pytest.mark.parametrize("name", [HEADER, MASK, REST])
def test_a_changed_part_is_named(name: str, tmp_path: Path) -> None:
    def change(header: dict[str, Any], members: dict[str, bytes]) -> None:
        if name == HEADER:
            header["theta"]["seed"] = 1
        else:
            members[name] = bytes([members[name][0] ^ 1]) + members[name][1:]

    write_ticket(tmp_path / "a.vtkt", ticket(), "raw")
    rewrite(tmp_path / "a.vtkt", change)
    assert f"is a changed ticket: {name} is not what was written" in refusal(tmp_path / "a.vtkt")


def test_a_member_too_many_or_too_few_is_found(tmp_path: Path) -> None:
    write_ticket(tmp_path / "a.vtkt", ticket())
    rewrite(tmp_path / "a.vtkt", lambda header, members: members.update(more=b"1"))
    assert "changed ticket: more" in refusal(tmp_path / "a.vtkt")
    write_ticket(tmp_path / "a.vtkt", ticket())
    rewrite(tmp_path / "a.vtkt", lambda header, members: members.pop(MASK))
    assert f"changed ticket: {MASK}" in refusal(tmp_path / "a.vtkt")
    with zipfile.ZipFile(tmp_path / "a.vtkt", "w") as archive:
        archive.writestr("other.txt", "text")
    assert "is no ticket of vtk prune" in refusal(tmp_path / "a.vtkt")


def test_a_newer_version_is_named_whatever_else_it_holds(tmp_path: Path) -> None:
    write_ticket(tmp_path / "a.vtkt", ticket())

    def change(header: dict[str, Any], members: dict[str, bytes]) -> None:
        header["version"] = 2
        header["codec"] = header.pop("layers")

    rewrite(tmp_path / "a.vtkt", change)
    assert "is a ticket of version 2; this vtk reads up to 1; install a newer vtk-cli" in refusal(tmp_path / "a.vtkt")


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("version",), "1", "its version is '1'"),
        (("keep",), 10, "keep is '10', not a fraction in (0, 1]"),
        (("keep",), "1/0", "Fraction(1, 0)"),
        (("keep",), "1e-999999999", "not a fraction"),
        (("scope",), "all", "scope is 'all', not one of layer, global"),
        (("structure",), "1:2", "structure is '1:2'"),
        (("codec",), "lzma", "codec is 'lzma'"),
        (("theta", "source"), "magic", "theta.source is 'magic'"),
        (("theta", "seed"), None, "the seed of its weights is None"),
        (("theta", "source"), "checkpoint", "which checkpoint"),
        (("theta", "init"), "zeros", "theta.init is 'zeros'"),
        (("theta", "fan"), "half", "theta.fan is 'half'"),
        (("theta", "scale"), 2, "theta.scale is '2'"),
        (("layers",), [], "no layers"),
        (("layers", 0, "kept"), 3, "the masks are not what the header announces"),
        (("layers", 0, "kept"), 1000, "layer first keeps 1000 of 48 weights"),
        (("layers", 0, "n"), 47, "layer first keeps"),
        (("layers", 0, "shape"), [4, -3], "has the shape [4, -3]"),
        (("layers", 0, "shape"), 48, "'int' object is not iterable"),
        (("layers", 1, "frozen"), True, "is outside the pool and keeps"),
        (("layers", 1, "name"), "first", "two of one name"),
        (("rest", 0, "shape"), [6], "24 bytes for 7 numbers"),
        (("image_range",), [0.0, 1.0], "its images lie in [0.0, 1.0]"),
        (("metrics", "N"), float("nan"), "NaN is in its header"),
        (("theta", "seed"), True, "the seed of its weights is True"),
        (("generator",), {"a": 1}, "no field 'name'"),
        (("generator", "nz"), [1], "it describes no generator"),
        (("generator",), "dcgan-tiny", "'dcgan-tiny' is where names and values are expected"),
        (("sha256", "weights"), "zz", "the sum of its weights is none"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    keys: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    def change(header: Any, members: dict[str, bytes]) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    write_ticket(tmp_path / "a.vtkt", ticket())
    rewrite(tmp_path / "a.vtkt", change, honest=True)
    assert said in refusal(tmp_path / "a.vtkt")


def test_a_header_without_a_field_names_it(tmp_path: Path) -> None:
    write_ticket(tmp_path / "a.vtkt", ticket())
    rewrite(tmp_path / "a.vtkt", lambda header, members: header.pop("keep"), honest=True)
    assert "no field 'keep'" in refusal(tmp_path / "a.vtkt")


def test_a_layer_of_absurd_size_is_refused_before_room_is_made_for_it(tmp_path: Path) -> None:
    def change(header: dict[str, Any], members: dict[str, bytes]) -> None:
        header["layers"][0].update(shape=[2**20, 2**20], n=2**40, kept=1)

    write_ticket(tmp_path / "a.vtkt", ticket())
    rewrite(tmp_path / "a.vtkt", change, honest=True)
    assert "more than 1073741824 weights" in refusal(tmp_path / "a.vtkt")


def test_a_header_that_unpacks_to_more_than_any_ticket_has_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.vtkt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HEADER, " " * 2**25)
    assert "unpacks to 33554432 bytes" in refusal(tmp_path / "a.vtkt")


def test_other_files_and_no_file_are_no_tickets(tmp_path: Path) -> None:
    assert "no such ticket" in refusal(tmp_path / "none.vtkt")
    (tmp_path / "a.vtkt").write_text("a text")
    assert "is no ticket" in refusal(tmp_path / "a.vtkt")


def test_stored_weights_of_another_number_are_refused(tmp_path: Path) -> None:
    count = sum(layer.kept for layer in ticket().layers)
    stored = ticket(origin=Origin("stored"), kept_weights=torch.zeros(count + 1))
    write_ticket(tmp_path / "a.vtkt", stored)
    assert f"{4 * count + 4} bytes for {count} numbers" in refusal(tmp_path / "a.vtkt")
    rewrite(tmp_path / "a.vtkt", lambda header, members: members.pop(WEIGHTS), honest=True)
    assert f"no field '{WEIGHTS}'" in refusal(tmp_path / "a.vtkt")


def test_a_full_disk_leaves_the_ticket_that_was_there(tiny_disk: Path) -> None:
    path = tiny_disk / "a.vtkt"
    write_ticket(path, ticket())
    large = ticket(rest={"bn.running_mean": torch.zeros(200_000)})
    with pytest.raises(JobError, match="no space left"):
        write_ticket(path, large)
    assert_same(read_ticket(path), ticket())
