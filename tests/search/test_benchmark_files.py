"""Benchmarks brought by the user: every layout gives the same figures; damaged and dangerous files are refused."""

from __future__ import annotations

import bz2
import os
import pickle

import numpy as np
import pytest
import torch

from tests.search.benchmark_files import (
    ACCURACIES,
    ARCHS,
    NATS,
    NONES,
    SKIPS,
    nasbench201,
    naslib,
    old_numpy,
    write_nats_folder,
)
from vtk_cli.errors import UserError
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.search.benchmarks import opening
from vtk_cli.search.benchmarks.benchmark import Row, Setting
from vtk_cli.search.benchmarks.inert_pickle import read_pickle
from vtk_cli.search.benchmarks.joining import match_space, truths
from vtk_cli.search.benchmarks.opening import open_benchmark
from vtk_cli.search.benchmarks.table_file import FIELDS, read_table, write_table

CELLS, MINI = SPACES["nasbench201"], SPACES["digits-mini"]


def _torch_new(folder):
    torch.save(nasbench201(), folder / "new.pth")
    return folder / "new.pth"


def _torch_old(folder):
    torch.save(nasbench201(), folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def _nats_file(folder):
    path = folder / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    with bz2.open(path, "wb") as file:
        pickle.dump(nasbench201(("12", "200")), file)
    return path


def _nats_folder(folder):
    return write_nats_folder(folder / "NATS-tss-v1_0-3ffb9-simple")


def _table(suffix):
    def write(folder):
        write_table(folder / f"table{suffix}", open_benchmark(_torch_new(folder)).all_rows())
        return folder / f"table{suffix}"

    return write


LAYOUTS = [_torch_new, _torch_old, _nats_file, _nats_folder, _table(".csv"), _table(".json")]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_holds_the_published_accuracies_of_the_last_epoch(write, tmp_path) -> None:
    benchmark = open_benchmark(write(tmp_path))
    assert benchmark.archs() == ARCHS
    values = [benchmark.value(NATS, "cifar10", "ori-test", "200", seed) for seed in (777, 888, 999)]
    assert values == [91.79, 91.76, 91.20]
    assert benchmark.value(NATS, "cifar10", "ori-test", "200") == pytest.approx(91.583, abs=5e-4)
    assert benchmark.value(NATS, "cifar10", "ori-test", "12", 777) == 86.79
    assert benchmark.value(NATS, "cifar10", "train", "200") == 99.0
    cost = benchmark.cost(NATS, "cifar10")
    assert (cost.flops, cost.params) == (pytest.approx(113_951_370), pytest.approx(802_426))
    row = next(row for row in benchmark.rows(NATS) if (row.split, row.hp) == ("ori-test", "200"))
    assert row.loss == 0.5


@pytest.mark.parametrize("write", LAYOUTS)
def test_the_usual_truth_is_the_test_split_after_the_longest_training(write, tmp_path) -> None:
    benchmark = open_benchmark(write(tmp_path))
    assert benchmark.choose() == Setting("cifar10", "ori-test", "200")
    assert benchmark.choose("cifar100") == Setting("cifar100", "x-test", "200")
    assert benchmark.choose("cifar100", "x-valid", "12") == Setting("cifar100", "x-valid", "12")


def test_naslibs_files_hold_means_over_seeds_of_cifar10_valid(tmp_path) -> None:
    path = tmp_path / "nb201_cifar10_full_training.pickle"
    path.write_bytes(pickle.dumps(naslib()))
    benchmark = open_benchmark(path)
    setting = benchmark.choose()
    assert setting == Setting("cifar10-valid", "eval", "200")
    assert benchmark.value(SKIPS, "cifar10-valid", "eval", "200") == pytest.approx(71.5)
    assert benchmark.cost(NATS, "cifar10-valid").params == pytest.approx(802_426)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_every_protocol_and_of_old_numpy_are_read(protocol, tmp_path) -> None:
    content = [np.float64(91.5), np.float32(0.5), np.int64(-7), np.bool_(True), {1, 2}, {"a": (1.5, None)}]
    pickled = pickle.dumps(content, protocol)
    for name, data in (("new", pickled), ("old", old_numpy(pickled))):
        path = tmp_path / f"{name}.pickle"
        path.write_bytes(data)
        read = read_pickle(path)
        assert read == [91.5, 0.5, -7, True, {1, 2}, {"a": (1.5, None)}]
        assert [type(number) for number in read[:4]] == [float, float, int, bool]
    assert protocol < 2 or old_numpy(pickled) != pickled


class _Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class _Calls:
    """Calls what benchmark files may name, with arguments that they never give."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


SCALAR = type(np.float64(1)).__reduce__(np.float64(1))[0]
"""The function with which numpy's pickles make a number."""


def test_numbers_of_the_other_byte_order_are_read(tmp_path) -> None:
    path = tmp_path / "big.pickle"
    for order in "<>":
        dtype = np.dtype(f"{order}f4")
        path.write_bytes(pickle.dumps(_Calls(SCALAR, dtype, np.array(2.5, dtype).tobytes())))
        assert read_pickle(path) == 2.5


def test_a_pickle_that_names_a_function_is_refused_and_not_run(tmp_path) -> None:
    trace = tmp_path / "trace"
    evil = nasbench201()
    evil["arch2infos"][1]["full"]["clear_net_done"] = _Runs(f"touch {trace}")
    torch.save(evil, tmp_path / "new.pth")
    torch.save(evil, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with bz2.open(tmp_path / "file.pickle.pbz2", "wb") as file:
        pickle.dump(evil, file)
    folder = write_nats_folder(tmp_path / "folder")
    with bz2.open(folder / "000000.pickle.pbz2", "wb") as file:
        pickle.dump(evil, file)
    for name in ("new.pth", "old.pth", "file.pickle.pbz2", "folder"):
        with pytest.raises(UserError, match=r"holds more than results \((posix|nt)\.system\); nothing of it was run"):
            open_benchmark(tmp_path / name)
    assert not trace.exists()
    assert not _Runs(f"touch {trace}").__reduce__()[0](f"touch {trace}")
    assert trace.exists()  # it would have been run


@pytest.mark.parametrize(
    "content",
    [
        _Calls(eval, "1"),
        _Calls(getattr, 1, "real"),
        _Calls(np.dtype, "O"),
        _Calls(np.dtype, [("a", "f8")]),
        _Calls(np.dtype, "S100"),
        _Calls(SCALAR, np.dtype("f8"), b"1234"),
        _Calls(SCALAR, "f8", b"12345678"),
        np.arange(3),
        Row("a", "b", "c", "d", None, 1.0),
        complex(1, 2),
    ],
)
def test_nothing_but_numbers_text_and_containers_is_made(content, tmp_path) -> None:
    path = tmp_path / "other.pickle"
    path.write_bytes(pickle.dumps({"meta_archs": content}, 2))
    with pytest.raises(UserError, match=r"holds more than results|is damaged"):
        read_pickle(path)


def test_what_a_pickle_does_to_the_allowed_names_does_not_outlive_it(tmp_path) -> None:
    """A pickle that makes of `numpy.dtype` a set, then one that asks for a number."""
    path = tmp_path / "writes.pickle"
    path.write_bytes(b"\x80\x02cnumpy\ndtype\n(c__builtin__\nset\n)}}tb(tR.")
    assert read_pickle(path) == set()
    path.write_bytes(pickle.dumps(np.float64(2.5)))
    assert read_pickle(path) == 2.5
    for allowed in (b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n"):
        path.write_bytes(b"\x80\x02" + allowed + b"}(X\x03\x00\x00\x00popK\x01ub.")
        with pytest.raises(UserError, match="is damaged"):
            read_pickle(path)
    assert {}.pop("a", None) is None


def test_a_file_with_weights_says_so(tmp_path) -> None:
    torch.save({"meta_archs": ["a"], "weights": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"holds (the weights of networks|more than results \(torch\._utils)"):
        open_benchmark(tmp_path / "weights.pth")


@pytest.mark.parametrize("write", LAYOUTS)
def test_a_file_cut_short_is_refused_wherever_it_is_cut(write, tmp_path) -> None:
    """At a tenth, at half, and a few bytes before the end, which in a table may be in the middle of its last number."""
    path = write(tmp_path)
    cut = path / "000001.pickle.pbz2" if path.is_dir() else path
    data = cut.read_bytes()
    for length in (len(data) // 10, len(data) // 2, *[len(data) - 5] * (path.suffix != ".csv")):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut short|damaged|has no accuracy|cannot be read"):
            open_benchmark(path).rows(NATS)
    cut.write_bytes(b"")
    with pytest.raises(UserError):
        open_benchmark(path).rows(NATS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("meta_archs"), "has no 'meta_archs'"),
        (lambda content: content.update(meta_archs=[]), "'meta_archs' is no list of text"),
        (lambda content: content.update(meta_archs=list(ARCHS[:2])), "there is no architecture 2"),
        (lambda content: content["meta_archs"].reverse(), "the entry of .* says"),
        (lambda content: content.update(arch2infos=None), "has no 'arch2infos'"),
        (lambda content: content["arch2infos"][0]["full"].pop("all_results"), "lacks 'all_results'"),
        (lambda content: content["arch2infos"][0].update(full=[1]), "cannot be read"),
        (
            lambda content: content["arch2infos"][0]["full"]["all_results"]["cifar10", 777].pop("epochs"),
            "lacks 'epochs'",
        ),
        (
            lambda content: content["arch2infos"][0]["full"]["all_results"]["cifar10", 777].update(
                eval_acc1es={"ori-test@199": float("nan")}
            ),
            "an accuracy of nan is no percentage",
        ),
    ],
)
def test_files_of_another_layout_say_what_is_missing(change, message, tmp_path) -> None:
    content = nasbench201()
    change(content)
    path = tmp_path / "bench.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=message) as refused:
        open_benchmark(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_naslibs_files_of_another_layout_say_what_is_missing(tmp_path) -> None:
    content = naslib()
    del content[NATS]["cifar10-valid"]["cost_info"]
    path = tmp_path / "nb201.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="lacks 'cost_info'"):
        open_benchmark(path)


def test_of_a_folder_only_what_is_asked_for_is_read(tmp_path) -> None:
    folder = write_nats_folder(tmp_path / "folder", archs=(NATS, SKIPS))
    benchmark = open_benchmark(folder)
    assert benchmark.archs() == (NATS, SKIPS)
    with pytest.raises(UserError, match="does not hold the architecture"):
        benchmark.value(NONES, "cifar10", "ori-test", "200")
    (folder / "000002.pickle.pbz2").write_bytes(b"BZh9 damaged")
    assert benchmark.value(NATS, "cifar10", "ori-test", "200", 999) == 91.20
    (folder / "000001.pickle.pbz2").unlink()
    assert benchmark.value(NATS, "cifar10", "ori-test", "200", 888) == 91.76
    with pytest.raises(UserError, match=r"000002\.pickle\.pbz2: is damaged"):
        benchmark.rows(SKIPS)


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds meta\.pickle\.pbz2"):
        open_benchmark(tmp_path)
    write_nats_folder(tmp_path / "empty", archs=())
    with pytest.raises(UserError, match="holds no architecture"):
        open_benchmark(tmp_path / "empty")


def test_a_large_pickle_is_read_once_and_then_from_the_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "_LARGE", 1)
    path = _torch_new(tmp_path)
    first = open_benchmark(path)
    kept = list((tmp_path / "cache" / "search" / "benchmarks").glob("*.csv"))
    assert len(kept) == 1
    with monkeypatch.context() as patched:
        patched.setattr(opening, "read_pickle", lambda path: pytest.fail("read again"))
        second = open_benchmark(path)
    assert list(second.all_rows()) == list(first.all_rows())
    assert second.name == str(path)
    path.write_bytes(_torch_old(tmp_path).read_bytes())
    assert list(open_benchmark(path).all_rows()) == list(first.all_rows())
    assert len(list((tmp_path / "cache" / "search" / "benchmarks").glob("*.csv"))) == 2


@pytest.mark.parametrize("suffix", ["csv", "sha256"])
def test_a_table_in_the_cache_that_was_cut_short_at_the_end_of_a_line_is_made_anew(
    suffix, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "_LARGE", 1)
    path = _torch_new(tmp_path)
    rows = list(open_benchmark(path).all_rows())
    (kept,) = (tmp_path / "cache" / "search" / "benchmarks").glob(f"*.{suffix}")
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:-1]))
    assert list(open_benchmark(path).all_rows()) == rows


def test_what_is_asked_for_wrongly_is_answered_with_what_there_is(tmp_path) -> None:
    benchmark = open_benchmark(_torch_new(tmp_path))
    for ask, message in (
        (lambda: benchmark.choose("cifar11"), r"holds no dataset 'cifar11'; did you mean cifar10"),
        (lambda: benchmark.choose("cifar10", "x-test"), r"holds no split 'x-test'; did you mean ori-test"),
        (lambda: benchmark.choose(hp="90"), r"holds no hp '90'; it holds"),
        (lambda: benchmark.value(NATS, "cifar10", "ori-test", "200", 5), r"no seed 5 .* its seeds are 777, 888, 999"),
        (
            lambda: benchmark.value(NATS, "cifar10", "x", "200"),
            r"holds nothing for cifar10, x, 200 .* it holds cifar10,",
        ),
        (lambda: benchmark.value("|a~0|", "cifar10", "ori-test", "200"), r"does not hold the architecture"),
        (lambda: open_benchmark(tmp_path / "absent.pth"), "no such benchmark"),
        (lambda: read_table(tmp_path / "absent.csv"), "no such benchmark"),
    ):
        with pytest.raises(UserError, match=message):
            ask()
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(UserError, match=r"known are \.csv"):
        open_benchmark(tmp_path / "text.txt")


def test_a_table_needs_no_more_than_architectures_and_accuracies(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('\ufeffaccuracy, arch\n91.5,0 1 2\n\n88,"3,3,3"\n', encoding="utf-8")
    benchmark = open_benchmark(path)
    match = match_space(MINI, benchmark)
    assert list(match.texts) == [(0, 1, 2), (3, 3, 3)]
    assert truths(benchmark, match, [(3, 3, 3), (0, 1, 2)], benchmark.choose()).tolist() == [88.0, 91.5]
    path = tmp_path / "mine.json"
    path.write_text('[{"arch": "0 1 2", "accuracy": 91.5, "loss": null}]')
    assert open_benchmark(path).value("0 1 2", "default", "default", "default") == 91.5


def test_tables_keep_every_field_whatever_it_holds(tmp_path) -> None:
    rows = [
        Row('a "quoted", text', "d", "test", "20", 0, 91.123456789012345, 0.1, 1.5e9, 3.0),
        Row("b", "d", "test", "20", None, 0.0),
    ]
    for name in ("a.csv", "a.json"):
        write_table(tmp_path / name, rows)
        assert list(read_table(tmp_path / name).all_rows()) == rows


HEADER = ",".join(FIELDS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "arch,acuracy\n1,2\n", r"a\.csv: has no field 'accuracy'; is it acuracy"),
        ("a.csv", "", "has no field 'arch'; the fields are arch, dataset"),
        ("a.csv", f"{HEADER}\n", "holds no architecture"),
        ("a.csv", f"{HEADER}\n0 1 2,d,test,20,0,91\n", r"a\.csv:2: has 6 of 9 fields: the file is cut short"),
        ("a.csv", "arch,accuracy\n1,50\n2,high\n", r"a\.csv:3: cannot be read: could not convert"),
        ("a.csv", "arch,accuracy\n1,nan\n", "an accuracy of nan is no percentage"),
        ("a.csv", "arch,accuracy\n1,101\n", "an accuracy of 101.0 is no percentage"),
        ("a.csv", "arch,accuracy\n1,\n", r"a\.csv:2: has no accuracy"),
        ("a.csv", "arch,seed,accuracy\n1,x,5\n", "invalid literal for int"),
        ("a.csv", "arch,accuracy\n1,50\n1,60\n", r"holds 1 twice \(default, default, default, no seed\)"),
        ("a.csv", 'arch,accuracy\n"1,50\n', "is cut short or no CSV"),
        ("a.json", "{", "is cut short or no JSON"),
        ("a.json", "{}", 'its "format" must be'),
        ("a.json", '{"format": "vtk architecture benchmark", "version": 2, "rows": []}', "is of version 2, known is 1"),
        ("a.json", '{"format": "vtk architecture benchmark", "version": 1}', "holds no list of rows"),
        ("a.json", "[1]", r"row 0 \(from 0\): is no object"),
        ("a.json", '[{"arch": "1"}]', "has no field 'accuracy'"),
        ("a.json", '[{"arch": "1", "accuracy": null}]', "has no accuracy"),
    ],
)
def test_a_table_that_cannot_be_read_is_answered_with_the_line(name, text, message, tmp_path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        open_benchmark(tmp_path / name)


def test_bytes_that_are_no_text_are_no_table(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is no text"):
        open_benchmark(tmp_path / "a.csv")


def test_architectures_are_joined_by_genes_and_the_rest_is_told(tmp_path) -> None:
    write_table(tmp_path / "a.csv", [Row(arch, "d", "test", "1", 0, 50.0) for arch in (NATS, "12:34", SKIPS)])
    benchmark = open_benchmark(tmp_path / "a.csv")
    match = match_space(CELLS, benchmark)
    assert list(match.texts) == [CELLS.parse(NATS), CELLS.parse(SKIPS)]
    assert match.foreign == ("12:34",)
    with pytest.raises(UserError, match=r"does not hold the architecture \|none~0\|"):
        truths(benchmark, match, [CELLS.parse(NATS), (0,) * 6], benchmark.choose())
    with pytest.raises(UserError, match=r"holds no architecture of darts, but e\.g\. "):
        match_space(SPACES["darts"], benchmark)
    write_table(tmp_path / "twice.csv", [Row(arch, "d", "test", "1", 0, 50.0) for arch in ("0 1 2", "0,1,2")])
    with pytest.raises(UserError, match="writes one architecture in two ways"):
        match_space(MINI, open_benchmark(tmp_path / "twice.csv"))


def test_draws_of_architectures_are_without_replacement_and_repeat_with_their_seed(tmp_path) -> None:
    rows = [Row(f"{a} {b} {c}", "d", "test", "1", 0, 50.0) for a in range(4) for b in range(4) for c in range(4)]
    write_table(tmp_path / "a.csv", rows)
    match = match_space(MINI, open_benchmark(tmp_path / "a.csv"))
    everything = match.draw(None, seed=0)
    assert len(everything) == 64 == MINI.size
    drawn = match.draw(16, seed=3)
    assert drawn == match.draw(16, seed=3) != match.draw(16, seed=4)
    assert len(set(drawn)) == 16
    assert list(drawn) == [genes for genes in everything if genes in drawn]
    assert match.draw(64, seed=1) == everything
    with pytest.raises(UserError, match="holds 64 architectures, not 65"):
        match.draw(65, seed=0)


def test_the_mean_over_seeds_is_the_truth_unless_one_seed_is_named(tmp_path) -> None:
    benchmark = open_benchmark(_torch_new(tmp_path))
    match, setting = match_space(CELLS, benchmark), benchmark.choose()
    genes = [CELLS.parse(arch) for arch in ARCHS]
    means = [sum(ACCURACIES[arch]) / 3.0 for arch in ARCHS]
    assert truths(benchmark, match, genes, setting) == pytest.approx(means)
    assert truths(benchmark, match, genes, setting, seed=888).tolist() == [ACCURACIES[arch][1] for arch in ARCHS]
