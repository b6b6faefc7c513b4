"""`vtk search rank`: how well scores order architectures whose true accuracy a benchmark knows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device, resolve_device
from vtk_cli.engine.pieces.assembly import end_shard, require_place
from vtk_cli.engine.pieces.sharding import work_on_devices
from vtk_cli.engine.run_folder import SUMMARY, RunFolder
from vtk_cli.engine.signals import stop_requests
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import write_json, write_text
from vtk_cli.models.spaces.catalog import space_named
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Space
from vtk_cli.reports import page
from vtk_cli.search.benchmarks.benchmark import Setting
from vtk_cli.search.benchmarks.joining import match_space, truths
from vtk_cli.search.benchmarks.opening import open_benchmark
from vtk_cli.search.candidates import KEPT, Candidates
from vtk_cli.search.measuring import candidates_of, result_store
from vtk_cli.search.outcome import PAGE
from vtk_cli.search.rank_picture import RankedScore, draw_ranking, told
from vtk_cli.search.ranking import Agreement, Estimate, Floats, agreement, difference_of, kendall_tau
from vtk_cli.search.scored import read_scores
from vtk_cli.search.scores.settings import Measurement
from vtk_cli.search.supernet_file import SupernetRun, open_supernet
from vtk_cli.search.verb_options import RankOptions

BASELINES = ("parameters", "MACs")
"""What orders architectures without any training."""


@dataclass(frozen=True)
class Ranking:
    """How scores agree with the truth.

    Args:
        space: of the architectures.
        setting: of the benchmark.
        genes: of the N architectures.
        truth: (N,) accuracies in percent.
        scores: name -> (N,), larger is better.
        agreements: name -> how it agrees with the truth.
        over_loss: name -> by how much its tau exceeds that of the loss, where the loss was measured.
    """

    space: Space
    setting: Setting
    genes: tuple[Genes, ...]
    truth: Floats
    scores: Mapping[str, Floats]
    agreements: Mapping[str, Agreement]
    over_loss: Mapping[str, Estimate]

    @classmethod
    def of(
        cls,
        space: Space,
        setting: Setting,
        truth: Mapping[Genes, float],
        scores: Mapping[str, Mapping[Genes, float]],
        options: RankOptions,
    ) -> Ranking:
        """Compare, with bootstrap intervals over the architectures."""
        genes = tuple(truth)
        accuracies = np.array([truth[one] for one in genes])
        columns = {name: np.array([values[one] for one in genes]) for name, values in scores.items()}
        agreements = {
            name: agreement(values, accuracies, regret_of=options.top, draws=options.resamples, seed=options.seed)
            for name, values in columns.items()
        }
        over_loss = {
            name: difference_of(
                kendall_tau, values, columns["loss"], accuracies, draws=options.resamples, seed=options.seed
            )
            for name, values in columns.items()
            if "loss" in columns and name != "loss"
        }
        return cls(space, setting, genes, accuracies, columns, agreements, over_loss)

    def table(self) -> page.Table:
        """A row a score."""
        some = next(iter(self.agreements.values()))
        columns = (
            "score",
            "Kendall tau",
            "Spearman",
            "over the loss",
            f"best {some.top} found",
            f"top {some.regret_of} lose",
        )
        rows = [
            (
                name,
                told(one.tau),
                told(one.spearman),
                told(self.over_loss[name]) if name in self.over_loss else "",
                f"{one.overlap:.0%}",
                f"{one.regret:.2f}",
            )
            for name, one in self.agreements.items()
        ]
        caption = (
            "95 % intervals: bootstrap over architectures. Over the loss: Kendall tau less that of the loss. Found: how"
            f" many of the best {some.top} are among the {some.top} highest scores. Lose: points of accuracy that are"
            f" lost where the {some.regret_of} highest scores alone are trained."
        )
        return page.Table(columns, rows, caption=caption)

    def lines(self) -> page.Table:
        """The same for a terminal of 80 columns: without the interval of Spearman's correlation and the overlap."""
        some = next(iter(self.agreements.values()))
        rows = [
            (
                name,
                told(one.tau),
                told(one.spearman).partition(" [")[0],
                told(self.over_loss[name]) if name in self.over_loss else "",
                f"{one.regret:.2f}",
            )
            for name, one in self.agreements.items()
        ]
        return page.Table(("score", "Kendall tau", "Spearman", "over the loss", f"top {some.regret_of}"), rows)

    def as_json(self) -> dict[str, object]:
        """For `summary.json`."""
        return {
            "space": self.space.name,
            "setting": asdict(self.setting),
            "architectures": len(self.genes),
            "scores": {name: asdict(one) for name, one in self.agreements.items()},
            "tau_over_loss": {name: asdict(one) for name, one in self.over_loss.items()},
        }

    def csv(self) -> str:
        """A line an architecture: its accuracy and its scores."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("arch", "accuracy", *self.scores))
        for number, one in enumerate(self.genes):
            values = (repr(float(column[number])) for column in self.scores.values())
            writer.writerow((self.space.format(one), repr(float(self.truth[number])), *values))
        return text.getvalue()


def rank_scores(options: RankOptions, console: Console) -> ExitCode:
    """Compare the scores of a supernet, or those of a file, with a benchmark.

    Raises:
        UserError: benchmark, scores and space do not go together.
        Preempted, KeyboardInterrupt: a signal came; scores are kept.
    """
    if options.benchmark is None:
        raise UserError("there is nothing to compare with", "BENCHMARK", "name a file of true accuracies")
    supernet = None if options.scores is not None else open_supernet(options.supernet)
    space = supernet.space if supernet is not None else space_named(options.space or "nasbench201")
    benchmark = open_benchmark(options.benchmark)
    setting = benchmark.choose(options.dataset, options.split, options.hp)
    match = match_space(space, benchmark)
    if match.foreign:
        shown = ", ".join(match.foreign[:3])
        console.warn(f"{len(match.foreign)} architectures of the benchmark are none of {space.name}: {shown}")
    genes = match.draw(options.num_archs, options.seed)
    if options.dry_run:
        console.text(f"{len(genes):,} architectures of {space.name}, {setting}")
        console.emit({"architectures": len(genes), "setting": asdict(setting), "config": options.as_config()})
        return ExitCode.DONE
    truth = dict(zip(genes, truths(benchmark, match, genes, setting).tolist(), strict=True))
    require_place(options)
    if supernet is not None and options.devices:
        work_on_devices("search rank", options, console, KEPT)
    supply = None if supernet is None else _Supply.of(options, supernet, console)

    def assemble() -> Path:
        with _run_folder(options, console) as run:
            if supply is not None:
                known, scores = truth, _measured(options, supply, genes, console)
            else:
                scores = read_scores(Path(str(options.scores)), space)
                known = _common(truth, scores, console)
            ranking = Ranking.of(space, setting, known, {**scores, **_baselines(space, tuple(known))}, options)
            _conclude(ranking, run, console)
        return run.path / SUMMARY

    if options.shard is None or supply is None:
        assemble()
        return ExitCode.DONE
    _measured(options, supply, genes, console)
    keys, folder = supply.candidates.keys(genes, supply.needs), supply.candidates.store.folder
    return end_shard(options, "search rank", keys, folder, assemble, kept=KEPT, console=console)


def _run_folder(options: RankOptions, console: Console) -> AbstractContextManager[RunFolder]:
    return RunFolder.open(
        "search rank",
        Path(str(options.benchmark)).stem,
        config=options.as_config(),
        out=options.out,
        console=console,
        seed=options.seed,
        device=describe_device(resolve_device(options.device)),
        may_change={"device", "score-batch-size", "store", "devices"} if options.out else (),
    )


@dataclass(frozen=True)
class _Supply:
    """What measures architectures, and every measurement that the supernet allows."""

    candidates: Candidates
    needs: frozenset[Measurement]

    @classmethod
    def of(cls, options: RankOptions, supernet: SupernetRun, console: Console) -> _Supply:
        everything: set[Measurement] = {"clean", "noise", "angle"} if supernet.initial else {"clean", "noise"}
        store, device, needs = result_store(options.store), resolve_device(options.device), options.judgement.needs
        needs = frozenset(needs | everything)
        return cls(
            candidates_of(supernet, options.judgement, needs, store=store, device=device, console=console), needs
        )


def _measured(
    options: RankOptions, supply: _Supply, genes: tuple[Genes, ...], console: Console
) -> dict[str, dict[Genes, float]]:
    """Every metric that can be measured, and the score that was asked for where it is a sum."""
    judgement = options.judgement
    with stop_requests() as stop, console.progress("architectures", len(genes)) as progress:
        found = supply.candidates.measured(genes, supply.needs, stop, progress.advance, options.share)
    metrics = [judgement.metrics(one) for one in found]
    columns = {
        name: {
            one: -values[name] if name == "loss" else values[name] for one, values in zip(genes, metrics, strict=True)
        }
        for name in metrics[0]
    }
    if judgement.name not in columns:
        columns[judgement.name] = dict(zip(genes, judgement.scores(metrics), strict=True))
    return columns


def _common(
    truth: Mapping[Genes, float], scores: Mapping[str, Mapping[Genes, float]], console: Console
) -> dict[Genes, float]:
    known = next(iter(scores.values())).keys()
    common = {genes: value for genes, value in truth.items() if genes in known}
    if not common:
        raise UserError("the scores and the benchmark have no architecture in common", "--scores", "check --space")
    if len(common) < len(known):
        console.warn(f"{len(known) - len(common)} scored architectures are not in the benchmark")
    return common


def _baselines(space: Space, genes: tuple[Genes, ...]) -> dict[str, dict[Genes, float]]:
    table = space.table(space.shape(space.alone, 10))
    costs = {one: table.cost(one) for one in genes}
    figures = {"parameters": "params", "MACs": "macs"}
    return {name: {one: float(getattr(cost, at)) for one, cost in costs.items()} for name, at in figures.items()}


def _conclude(ranking: Ranking, run: RunFolder, console: Console) -> None:
    table, lines = ranking.table(), ranking.lines()
    title = f"{len(ranking.genes):,} architectures of {ranking.space.name} ({ranking.setting})"
    console.table(title, lines.columns, lines.rows)
    console.text(f"95 % intervals by bootstrap; {lines.columns[-1]}: points lost by training only so many")
    write_text(run.path / "ranking.csv", ranking.csv())
    write_json(run.path / "ranking.json", ranking.as_json())
    shown = [RankedScore(name, ranking.scores[name], one) for name, one in ranking.agreements.items()]
    picture = draw_ranking(run.plots / "ranking", shown, ranking.truth, title=title)
    sections = [page.Section("How well scores rank", [table, page.Image(picture.svg, "accuracy over each score")])]
    page.write_page(run.path / PAGE, page.Page(title, "Scores against true accuracies", {}, sections))
    summary = ranking.as_json()
    run.finish(summary)
    console.text(f"Look at {run.path / PAGE}")
    console.emit(summary)
