"""Any bytes as lists, tables, tickets, architectures and configs, any text as options: a value or a line."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cases import held
from tests.hostile.mutations import VALUES, broken, broken_json, fuzzed, tried
from tests.search.benchmark_files import ARCHS, trainings
from vtk_cli.adapt.budget import parse_budget
from vtk_cli.adapt.domain_lists import read_listed
from vtk_cli.adapt.labels import read_answers
from vtk_cli.adapt.manifest import read_manifest
from vtk_cli.adapt.query.catalog import parse_strategy
from vtk_cli.console import Console
from vtk_cli.data.classification_evaluation import open_eval_set
from vtk_cli.data.video.lists import class_names_beside, read_video_list
from vtk_cli.data.video.records import parse_sampling
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.errors import UserError
from vtk_cli.families.proof import parse_seeds
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.models.names import parse_network, read_network_list
from vtk_cli.models.spaces.architecture import parse_architecture, read_architecture, read_network_name
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.options import RunOptions, add_command, fraction, option
from vtk_cli.prune.ticket import Layer, Origin, Ticket
from vtk_cli.prune.ticket_file import HEADER, read_ticket, write_ticket
from vtk_cli.search.benchmarks.opening import open_benchmark
from vtk_cli.search.halves import read_halves
from vtk_cli.search.options import count_of
from vtk_cli.search.scored import read_scores
from vtk_cli.similarity.features import FEATURE_NAMES, NAME_COLUMN, read_features
from vtk_cli.similarity.matrix_file import read_matrix_csv
from vtk_cli.train.sub.ratio import parse_ratio

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two videos that are none, two images, and a cache of its own."""
    here = tmp_path_factory.mktemp("fuzz")
    for name in ("a.mp4", "b.mp4"):
        (here / name).touch()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(here / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        patch.chdir(here)
        yield here


class Reader(NamedTuple):
    """A parser: the file it reads, broken contents for it, and reading all that it gives."""

    file: str
    contents: st.SearchStrategy[bytes]
    read: Callable[[Path], object]


PATHS = b"a.mp4 0\nb.mp4, 1\nc d.mp4\t2\n"
VTK = b"path,label,start,end\na.mp4,0,0.5,2\nb.mp4,1,,\n"
KINETICS = b"label,youtube_id,time_start,time_end,split\nabseiling,a,3,13,train\nyoga,b,0,10,train\n"
SSV2 = [{"id": "a", "template": "Moving [something] up"}, {"id": 3, "template": ""}]
SSV2_LABELS = {"Moving something up": "0", "Nothing": "1"}
UCF = b"Yoga/a.avi 1\nSwing/b.avi 2\n"
UCF_CLASSES = b"1 Yoga\n2 Swing\n"
HMDB = b"a.avi 1\nb b.avi 2\nc.avi 0\n"
DIVING = [{"vid_name": "a", "label": 0, "start_frame": 0, "end_frame": 9}, {"vid_name": "b", "label": 1}]
GYM = b"A0xAXXysHUo_E_1 0\nb 12\n"


def videos(path: Path) -> None:
    beside = {
        "something-something-v2-labels.json": json.dumps(SSV2_LABELS).encode(),
        "test-answers.csv": b"3;Nothing\n",
        "classInd.txt": UCF_CLASSES,
        "classes.txt": b"a\nb\n",
    }
    for name, content in beside.items():
        if name != path.name:
            path.with_name(name).write_bytes(content)
    first = {
        "something-something-v2-labels.json": ("v2.json", json.dumps(SSV2).encode()),
        "test-answers.csv": ("v2.json", json.dumps(SSV2).encode()),
        "classInd.txt": ("trainlist01.txt", UCF),
        "classes.txt": ("list.txt", PATHS),
    }.get(path.name)
    main = path if first is None else path.with_name(first[0])
    if first is not None:
        main.write_bytes(first[1])
    read_video_list(main)
    class_names_beside(main)


def _ticket() -> bytes:
    masks = {name: torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) < 0.3 for name in ("a", "b")}
    made = Ticket(
        generator={"name": "dcgan-tiny", "nz": 4},
        keep=Fraction(3, 10),
        scope="global",
        structure="none",
        algorithm="edge-popup",
        origin=Origin("seed", "signed-constant", 7),
        layers=tuple(Layer(name, (4, 3), int(mask.sum())) for name, mask in masks.items()),
        masks=masks,
        rest={"bn": torch.ones(2)},
        weights_sha256="a" * 64,
    )
    path = Path("made.vtkt")
    write_ticket(path, made)
    content = path.read_bytes()
    path.unlink()
    return content


def _with_headers(content: bytes) -> st.SearchStrategy[bytes]:
    """A ticket with other bytes, or with a header that says something else, under its own sum or an honest one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def packed(header: bytes, honest: bool) -> bytes:
        header = _summed(header) if honest else header
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, header if name == HEADER else data)
        return made.getvalue()

    return st.one_of(broken(content), st.builds(packed, broken_json(json.loads(members[HEADER])), st.booleans()))


def _summed(header: bytes) -> bytes:
    try:
        said = json.loads(header)
        sums = {name: value for name, value in said["sha256"].items() if name != HEADER}
        text = json.dumps({**said, "sha256": sums}, sort_keys=True, separators=(",", ":"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return header
    said["sha256"][HEADER] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(said).encode()


@pytest.fixture(scope="module")
def tickets(folder: Path) -> Reader:
    return Reader("broken.vtkt", _with_headers(_ticket()), read_ticket)


ARCHITECTURE = {"space": "chain-a", "genes": [0, 1, 2], "width": 8, "num_classes": 10, "score": {"accuracy": 1.0}}
GENOTYPE = {"normal": [["sep_conv_3x3", 0]] * 8, "reduce": [["skip_connect", 1]] * 8}
ROWS = b"""arch,dataset,split,hp,seed,accuracy,loss,flops,params
0 1 2,d,test,20,0,91.3,0.31,248,15
1 1 2,d,test,20,,9,,,
"""
ROWS_JSON = {
    "format": "vtk architecture benchmark",
    "version": 1,
    "rows": [{"arch": "0 1 2", "dataset": "d", "split": "test", "hp": "20", "seed": 0, "accuracy": 91.3}],
}


def _nasbench() -> dict[str, Any]:
    entries = {index: {"full": trainings(arch, 200)} for index, arch in enumerate(ARCHS)}
    return {"meta_archs": list(ARCHS), "evaluated_indexes": [0, 1, 2], "arch2infos": entries}


def benchmark(path: Path) -> None:
    table = open_benchmark(path)
    setting = table.choose()
    for arch in table.archs():
        tried(lambda arch=arch: table.value(arch, setting.dataset, setting.split, setting.hp))
        table.cost(arch, setting.dataset)


SCORES = b"arch,score,accuracy,loss,flops,params\n0 1 2,0.5,0.25,1.5,100,10\n1 1 2,0.25,0.5,nan,100,10\n"
MATRIX = b",a,b\na,4.6,1.5\nb,1.5,4.6\n"
FEATURES = ",".join((NAME_COLUMN, *FEATURE_NAMES)).encode() + b"\na" + b",x" * len(FEATURE_NAMES) + b"\n"
LISTED = b"a.png 0\nb.png 1\n"
LISTED_CSV = b"path,label,split\na.png,cat,train\nb.png,dog,val\n"
ANSWERS = b"sample_id,label\na.png,cat\n"
STUDIO = [
    {"data": {"sample_id": "a.png"}, "annotations": [{"result": [{"value": {"choices": ["cat"]}}], "was_cancelled": 0}]}
]
MANIFEST = b"sample_id,size,sha1_16\na.png,3,0123456789abcdef\n"
SPLITS = {"train": [0, 1], "valid": ["int", ["2", "3"]]}
REAL = [[1], [0, 2], []]
NETWORKS = b"resnet50\nvit_b # a comment\nrn=runs/a.pt\n"
TOML = (
    b'sigma = 1.5\nrounds = 3\neps = "8/255"\nshape = "disc"\nnames = ["a", "b"]\nfast = true\n[slurm]\ntime = "1h"\n'
)


@dataclass(frozen=True, kw_only=True)
class BlurOptions(RunOptions):
    sigma: float = option(1.0, "Width.", above=0, maximum=10)
    rounds: int = option(1, "Times.", minimum=1)
    eps: float = option(0.5, "A fraction.", parse=fraction)
    budget: float | None = option(None, "A count.", parse=count_of)
    shape: Literal["box", "disc"] = option("box", "Shape.")
    names: tuple[str, ...] = option((), "Names.")
    table: Path | None = option(None, "A table.")
    fast: bool = option(False, "Fast.")


def config(path: Path) -> None:
    app = typer.Typer()
    add_command(app, BlurOptions, lambda options, _: options.as_config() and None, name="blur", help="Blur.")
    app.command("other")(lambda: None)
    try:
        typer.main.get_command(app).main(["blur", "--config", str(path)], prog_name="vtk", standalone_mode=False)
    except typer.exceptions.TyperException as error:  # `app` tells it as it tells a VtkError
        raise UserError(error.format_message() or "no message") from error


def real_labels(path: Path) -> None:
    for number in range(3):
        image = path.parent / f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        if not image.exists():
            Image.new("RGB", (4, 4)).save(image)
    open_eval_set(path.parent, ("a", "b", "c"), console=QUIET)


READERS = {
    "videos, paths": Reader("list.txt", broken(PATHS), videos),
    "videos, vtk": Reader("list.csv", broken(VTK), videos),
    "videos, Kinetics": Reader("kinetics.csv", broken(KINETICS), videos),
    "videos, Something-Something": Reader("v2.json", broken_json(SSV2), videos),
    "videos, its labels": Reader("something-something-v2-labels.json", broken_json(SSV2_LABELS), videos),
    "videos, its answers": Reader("test-answers.csv", broken(b"3;Nothing\n4;Moving something up\n"), videos),
    "videos, UCF101": Reader("trainlist01.txt", broken(UCF), videos),
    "videos, its classes": Reader("classInd.txt", broken(UCF_CLASSES), videos),
    "videos, HMDB51": Reader("yoga_test_split1.txt", broken(HMDB), videos),
    "videos, Diving48": Reader("diving.json", broken_json(DIVING), videos),
    "videos, Gym99": Reader("gym99_train.txt", broken(GYM), videos),
    "videos, class names": Reader("classes.txt", broken(b"a\nb\n"), videos),
    "architecture": Reader("architecture.json", broken_json(ARCHITECTURE), read_architecture),
    "genotype": Reader("genotype.json", broken_json(GENOTYPE), read_architecture),
    "benchmark, CSV": Reader("bench.csv", broken(ROWS), benchmark),
    "benchmark, JSON": Reader("bench.json", broken_json(ROWS_JSON), benchmark),
    "benchmark, pickle": Reader("bench.pth", broken(pickle.dumps(_nasbench())), benchmark),
    "benchmark, packed pickle": Reader("bench.pickle.pbz2", broken(bz2.compress(pickle.dumps(_nasbench()))), benchmark),
    "scores": Reader("scores.csv", broken(SCORES), lambda path: read_scores(path, SPACES["chain-a"])),
    "similarity matrix": Reader("matrix.csv", broken(MATRIX), read_matrix_csv),
    "network features": Reader("features.csv", broken(FEATURES), read_features),
    "networks": Reader("nets.txt", broken(NETWORKS), read_network_list),
    "halves": Reader("halves.json", broken_json(SPLITS), lambda path: read_halves(path, 4)),
    "domain, list": Reader("domain.txt", broken(LISTED), lambda path: read_listed(path, None, QUIET)),
    "domain, CSV": Reader("domain.csv", broken(LISTED_CSV), lambda path: read_listed(path, None, QUIET)),
    "answers": Reader("answers.csv", broken(ANSWERS), read_answers),
    "answers, Label Studio": Reader("answers.json", broken_json(STUDIO), read_answers),
    "manifest": Reader("manifest.csv", broken(MANIFEST), read_manifest),
    "config": Reader("blur.toml", broken(TOML), config),
    "label sets": Reader("real/real.json", broken_json(REAL), real_labels),
}


def fuzz(folder: Path, reader: Reader) -> None:
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    tries = 0

    @fuzzed
    @given(reader.contents)
    def each(content: bytes) -> None:
        nonlocal tries
        tries += 1
        path.write_bytes(content)
        tried(lambda: reader.read(path))

    try:
        each()
    finally:
        path.unlink()
    held(
        "hostile",
        "any bytes as lists, tables, tickets, architectures, configs",
        "a value or a line (exit code 2)",
        tries,
    )


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused_with_a_line(folder: Path, name: str):
    fuzz(folder, READERS[name])


def test_any_bytes_are_a_ticket_or_refused_with_a_line(folder: Path, tickets: Reader):
    fuzz(folder, tickets)


def of_option(parse: Callable[[str], object]) -> Callable[[str], object]:
    """A parser of `option(parse=...)`: what it does not take it says with ValueError, which typer tells as a line."""

    def read(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise UserError(str(error)) from error

    return read


TEXTS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "--seeds": ("0-2,5", parse_seeds),
    "--shard": ("1/4", lambda text: ShardOptions(shard=text).share),
    "fraction": ("8/255", of_option(fraction)),
    "count": ("600M", of_option(count_of)),
    "--sub-ratio": ("0.25:0.75", parse_ratio),
    "--sampling": ("dense:8x8", parse_sampling),
    "--query": ("margin:0.5,random:0.5", parse_strategy),
    "--budget": ("5%", lambda text: parse_budget(text, 200)),
    "a network": ("rn50=runs/a.pt", parse_network),
    "a searched network": ("searched:chain-a/2.0.3/form=a", read_network_name),
    "an architecture": ("genas-flatness-cifar10", parse_architecture),
    **{f"genes of {name}": ("0 1 2, 3|4", space.parse) for name, space in SPACES.items()},
}
LETTERS = "0123456789.,:;/-+|~=%@#*()[]{}\"' \t\nabckmgexinfNa_\0\ud800é٣½"


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_an_option_or_refused_with_a_line(folder: Path, name: str):
    valid, parse = TEXTS[name]
    words = [value for value in VALUES if isinstance(value, str)]
    pieces = st.one_of(st.sampled_from(words), st.sampled_from((valid, *LETTERS)), st.text(LETTERS, max_size=4))
    edited = st.builds(lambda at, piece: valid[:at] + piece + valid[at:], st.integers(0, len(valid)), pieces)
    many = st.builds(lambda piece, times: (piece * times)[:20_000], pieces, st.integers(1, 5000))
    tries = 0

    @fuzzed
    @given(st.one_of(edited, st.text(LETTERS, max_size=12), many, st.lists(pieces, max_size=4).map("".join)))
    def each(text: str) -> None:
        nonlocal tries
        tries += 1
        tried(lambda: parse(text))

    each()
    held("hostile", "any text as an option", "a value or a line (exit code 2)", tries)
