from __future__ import annotations

from pathlib import Path

import torch

from tests.adapt.drawn_domains import class_tree
from vtk_cli.adapt.asking import Query, asked_rows, write_query
from vtk_cli.adapt.domains import Domains, open_domains
from vtk_cli.adapt.labels import check_answers, question_of, read_answers
from vtk_cli.adapt.manifest import make_manifest, read_manifest, require_same_contents, write_manifest
from vtk_cli.adapt.oracle import Oracle
from vtk_cli.adapt.query.outputs import PoolOutputs
from vtk_cli.adapt.query.selecting import query_rng, select
from vtk_cli.adapt.run_files import RunFiles, append_rows, csv_text, load_run, read_classes, save_state, write_classes
from vtk_cli.adapt.state import (
    ask,
    candidates,
    check_invariants,
    divide,
    new_state,
    next_size,
    pending,
    settled,
    source_ready,
    trained,
    undone,
)
from vtk_cli.console import Console

QUIET = Console(quiet=True)


def opened(folder: Path) -> Domains:
    source = class_tree(folder / "source", ["bike", "cup", "pen"])
    target = class_tree(folder / "target", ["bike", "cup", "pen"], 8)
    return open_domains(str(source), str(target), console=QUIET)


def start(files: RunFiles, domains: Domains, total: int, rounds: int) -> None:
    manifest = make_manifest(domains.pool, QUIET)
    write_manifest(files.manifest, manifest)
    write_classes(files, domains.class_names)
    state = new_state(
        total=total, rounds=rounds, strategy="loss", recipe="sequential", seed=3, manifest_sha1=manifest.sha1
    )
    save_state(files, trained(source_ready(state, "ckpt/source.pt"), (), domains.pool.ids, "ckpt/round_00.pt"))


def guessed(domains: Domains, names: tuple[str, ...], number: int) -> PoolOutputs:
    """What a model might say after a round: the same for the same images."""
    draw = torch.Generator().manual_seed(number)
    every = torch.randn(len(domains.pool), 3 + 5 + 1, generator=draw)[domains.pool.rows(names)]
    return PoolOutputs(names, every[:, :3], every[:, 3:8], every[:, 8])


def query(files: RunFiles, domains: Domains, strategy: str) -> tuple[str, ...]:
    state, rows = load_run(files)
    free = candidates(state, rows, domains.pool.ids)
    outputs = guessed(domains, free, state.round)
    picks = select(strategy, outputs, None, next_size(state, len(free)), query_rng(state.seed, state.round + 1))
    asked = ask(state, rows, domains.pool.ids, picks.ids, strategy)
    told = asked_rows(picks, domains.pool, domains.class_names, outputs)
    question = Query(told, asked.round, strategy, state.seed, 0, "", domains.class_names)
    write_query(files.round(asked.round), question, domains.pool, outputs)
    save_state(files, asked)
    return picks.ids


def label(files: RunFiles, domains: Domains, *, by_hand: bool) -> None:
    state, rows = load_run(files)
    given = Oracle(domains.truth, domains.class_names).answers(state, rows)
    if by_hand:
        said = [[name, domains.class_names[domains.truth[name]]] for name in pending(state, rows)]
        path = files.round(state.round) / "labels_in.csv"
        path.write_text(csv_text([["sample_id", "label"], *said]))
        given = read_answers(path)
    question = question_of(state, domains.pool.ids, read_classes(files))
    append_rows(files.labels, check_answers(given, question, rows, origin="oracle", time="now").rows)


def train(files: RunFiles, domains: Domains) -> None:
    state, rows = load_run(files)
    save_state(files, trained(state, rows, domains.pool.ids, files.relative(files.model(state.round))))


def loop(folder: Path, domains: Domains, strategy: str, *, by_hand: bool) -> RunFiles:
    files = RunFiles(folder)
    start(files, domains, 10, 4)
    while load_run(files)[0].phase != "done":
        query(files, domains, strategy)
        label(files, domains, by_hand=by_hand)
        train(files, domains)
        state, rows = load_run(files)
        check_invariants(state, rows, domains.pool.ids)
    return files


def test_a_loop_by_hand_is_the_loop_of_the_oracle(tmp_path: Path) -> None:
    domains = opened(tmp_path)
    runs = [loop(tmp_path / str(by_hand), domains, "loss", by_hand=by_hand) for by_hand in (False, True)]
    assert runs[0].labels.read_bytes() == runs[1].labels.read_bytes()
    assert runs[0].state.read_bytes() == runs[1].state.read_bytes()
    state, rows = load_run(runs[0])
    assert [len(record.asked) for record in state.history] == [0, 2, 2, 2, 4]
    assert state.budget.used == state.budget.total == 10
    right = {name: domains.class_names[domains.truth[name]] for name in state.asked}
    assert dict(divide(state, rows, domains.pool.ids).labelled) == right
    require_same_contents(read_manifest(runs[0].manifest), domains.pool, QUIET)


def test_an_undone_round_that_is_asked_again_asks_the_same(tmp_path: Path) -> None:
    domains, files = opened(tmp_path), RunFiles(tmp_path / "run")
    start(files, domains, 9, 3)
    first = query(files, domains, "clue")
    written = (files.round(1) / "query.csv").read_bytes()
    label(files, domains, by_hand=False)
    train(files, domains)
    before = files.labels.read_bytes()
    state, row = undone(*load_run(files), "now")
    append_rows(files.labels, [row])
    save_state(files, state)
    assert files.labels.read_bytes().startswith(before)
    state, rows = load_run(files)
    assert state.budget.used == 0
    assert state == settled(state, rows)
    assert query(files, domains, "clue") == first
    assert (files.round(1) / "query.csv").read_bytes() == written
