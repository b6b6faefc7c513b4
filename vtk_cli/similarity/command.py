"""`vtk similarity`: the face of the command. Options in, result out; the story is in `job.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

from vtk_cli.console import Console
from vtk_cli.data.options import DIGITS, ImageOptions
from vtk_cli.engine.options import TrainingOptions
from vtk_cli.engine.pieces.shard_options import ShardOptions
from vtk_cli.engine.recipe_verb import RecipeTable, add_recipes
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.models.names import ALIASES
from vtk_cli.options import RunOptions, add_command, fraction, new_app, option
from vtk_cli.similarity.recipes import PRESETS, preset_source

_RELATIVE_STEP = re.compile(r"(.+)eps")


class Measure(StrEnum):
    """Similarities that can stand beside SAT."""

    AGREEMENT = "agreement"
    ERROR_CONSISTENCY = "error-consistency"
    JENSEN_SHANNON = "jsd"
    GRADIENT_COSINE = "grad-cos"
    CKA = "cka"
    DECISION_BOUNDARY = "dbs"
    ALL = "all"


def _complete_alias(incomplete: str) -> list[str]:
    return [alias for alias in ALIASES if alias.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """Which networks, and with which weights."""

    networks: tuple[str, ...] = option(
        (),
        "Two or more: an alias (vit_b), a timm name, NAME=FILE, hub:ORG/NAME, tv:NAME, py:MODULE:FACTORY, @paper69;"
        " NAME@SEED is NAME trained here from that seed.",
        positional=True,
        metavar="NETWORK",
        complete=_complete_alias,
    )
    list: Path | None = option(None, "A file with more networks, one a line.", panel="Networks", metavar="FILE")
    weights: Literal["auto", "pretrained", "digits"] = option(
        "auto",
        "Published weights, or weights trained here on digits; auto: published ones with --data.",
        panel="Networks",
    )
    quick: bool = option(
        False, "Small stand-ins in place of the real ResNets and ViTs, trained on digits.", panel="Networks"
    )
    reference: bool = option(
        False, "Also train each network from another seed, as a yardstick for its scores.", panel="Networks"
    )
    offline: bool = option(False, "Do not try to fetch weights.", panel="Networks")


@dataclass(frozen=True, kw_only=True)
class AttackOptions(RunOptions):
    """How images are seen, attacked and scored."""

    protocol: Literal["canonical", "paper"] = option(
        "canonical", "One crop for all networks, or each network its own.", panel="Attack"
    )
    preset: Literal["paper", "standard", "digits"] | None = option(
        None, "Defaults for images and attack [default: digits, or standard with --data].", panel="Attack"
    )
    attack: Literal["pgd", "pgd-margin", "apgd", "mifgsm", "fgsm"] = option("pgd", "The attack.", panel="Attack")
    eps: float = option(
        fraction("32/255"),
        "Largest change of a pixel, of a range of 1.",
        panel="Attack",
        above=0,
        maximum=1,
        parse=fraction,
        advice="give a fraction of the pixel range in (0, 1]; did you mean 8/255?",
        metavar="X",
    )
    steps: int = option(10, "Gradient steps.", panel="Attack", minimum=1)
    step_size: str = option("6/255", "Length of a step: 2/255, 0.01 or 0.1eps.", panel="Attack", metavar="X")
    random_start: bool = option(True, "Start at a random point of the ball.", panel="Attack")
    attack_precision: Literal["fp32", "bf16"] = option("fp32", "Arithmetic of the attack.", panel="Attack")
    precision: Literal["fp32", "bf16"] = option("fp32", "Arithmetic of the scoring.", panel="Attack")
    batch_size: int = option(64, "Images at a time.", panel="Attack", minimum=1)

    @property
    def step(self) -> float:
        """The step in pixel units.

        Raises:
            UserError: `step_size` is not a positive number.
        """
        relative = _RELATIVE_STEP.fullmatch(self.step_size.strip())
        try:
            step = fraction(relative[1]) * self.eps if relative else fraction(self.step_size)
        except ValueError:
            step = 0.0
        if not 0 < step <= 2:
            raise UserError(
                f"{self.step_size!r} is no step", "--step-size", "give a positive number: 2/255, 0.01 or 0.1eps"
            )
        return step


@dataclass(frozen=True, kw_only=True)
class AnalysisOptions(RunOptions):
    """What is made of the scores."""

    import_matrix: Path | None = option(
        None, "Analyse a published matrix (CSV, the layout of sat.csv) in place of networks.", panel="Analysis"
    )
    adjust: Literal["none", "center"] = option(
        "none", "center: cluster and draw scores with each network's own level taken out.", panel="Analysis"
    )
    clusters: int | None = option(
        None, "Spectral clusters [default: N/2, at most 10].", panel="Analysis", metavar="K", minimum=2
    )
    affinity: Literal["sat", "exp"] = option("sat", "Cluster by max(SAT, 0), or by transfer.", panel="Analysis")
    measure: tuple[Measure, ...] = option(
        (), "Other similarities beside SAT, and how they rank with it; may be repeated.", panel="Analysis"
    )
    triplets: int = option(
        500, "Planes of --measure dbs, each of 2,500 forward passes a network.", panel="Analysis", minimum=1
    )
    importance: bool = option(False, "Which architecture features explain the scores.", panel="Analysis")
    features: Path | None = option(
        None, "CSV of architecture features, over those read off the networks.", panel="Analysis", metavar="FILE"
    )
    ensembles: bool = option(False, "Error reduction of ensembles against their members' SAT.", panel="Analysis")
    pick_ensemble: int | None = option(
        None, "Pick K accurate and unlike networks, and measure them.", panel="Analysis", metavar="K", minimum=2
    )
    suggest_teacher: str | None = option(
        None, "Rank the other networks as teachers of this one.", panel="Analysis", metavar="NETWORK"
    )
    floor: float = option(
        0.1, "The transfer, in percent, below which a pair scores as this much.", panel="Analysis", above=0, maximum=100
    )
    resamples: int = option(1000, "Bootstrap resamples of the intervals.", panel="Analysis", minimum=1)


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(ShardOptions):
    """How the work is spread and kept."""

    store: Path | None = option(
        None, "Where finished rows are kept [default: the user's cache].", panel="Scale", metavar="DIR"
    )
    cache_adv: Literal["auto", "yes", "no"] = option(
        "auto", "Keep attacked images, so that a new network costs one attack; auto: if there is room.", panel="Scale"
    )


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions(NetworkOptions, ImageOptions, AttackOptions, AnalysisOptions, TrainingOptions, ScaleOptions):
    """All options of `vtk similarity`."""

    recipe_option: ClassVar[str] = "preset"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:
        """`standard` with the user's own images, else `digits`."""
        return "standard" if given.get("data", DIGITS) != DIGITS else "digits"

    def check(self) -> None:
        """Options that contradict one another."""
        ShardOptions.check(self)
        _ = self.step
        if self.eps < 1 / 255:
            raise UserError("images have 8 bits: a smaller change than 1/255 is none", "--eps", "give at least 1/255")
        if self.on_digits and self.weights == "pretrained":
            raise UserError("published weights do not tell digits apart", "--weights pretrained", "give --data DIR")
        if not self.on_digits and (self.quick or self.weights == "digits" or self.epochs or self.reference):
            flags = {"--quick": self.quick, "--weights digits": self.weights == "digits", "--epochs": self.epochs}
            flag = next((flag for flag, given in flags.items() if given), "--reference")
            raise UserError("networks trained on digits cannot classify other images", flag, "leave out --data")
        if self.on_digits and (self.class_map or self.labels != "folders"):
            flag = "--class-map" if self.class_map else f"--labels {self.labels}"
            raise UserError("digits are labelled", flag, "give --data DIR, or leave it out")
        if self.importance and self.import_matrix and not self.features:
            raise UserError("the features of imported networks are not known", "--importance", "give --features FILE")
        if self.import_matrix:
            self._check_import()

    def _check_import(self) -> None:
        """An imported matrix is scores alone: nothing can be asked that takes the networks."""
        asked = {
            "networks": self.networks or self.list,
            "--measure": self.measure,
            "--ensembles": self.ensembles,
            "--pick-ensemble": self.pick_ensemble,
            "--shard": self.shard,
            "--merge": self.merge,
            "--devices": self.devices,
        }
        flag = next((flag for flag, given in asked.items() if given), None)
        if flag is not None:
            raise UserError("an imported matrix holds scores, no networks", "--import-matrix", f"leave out {flag}")


def run(options: SimilarityOptions, console: Console) -> ExitCode | None:
    """How alike networks are: do adversarial images made for one fool the other?

    SAT(A, B) is the logarithm of how many percent of the images that both classify correctly are misclassified by the
    other network once they were attacked against one (arXiv 2210.11407): ln 100 = 4.61 for a network with itself,
    lower for networks that see differently.

    Without --data the real networks are trained here on the embedded digits, once, and cached.

    Networks, their answers and rows (an attack and its evaluations) are pieces for any number of processes, each made
    once: with --shard I/COUNT a process is a task of an array, and the last to find all pieces there assembles.

    Further verb: vtk similarity recipes, the presets.
    """
    from vtk_cli.similarity.job import analyse_matrix, compare

    return compare(options, console) if options.import_matrix is None else analyse_matrix(options, console)


app = new_app()
add_command(
    app,
    SimilarityOptions,
    run,
    name="similarity",
    epilog="Examples:  vtk similarity resnet50 vit_b   ·   vtk similarity resnet18 resnet50 vit_s --quick --json   ·  "
    " vtk similarity --list nets.txt --data imagenet/val --preset paper --measure cka   ·  "
    " vtk slurm submit --array 69 --gpus 1 -- similarity @paper69 --data imagenet/val --preset paper --out sat69",
)
add_recipes(
    app,
    "similarity",
    RecipeTable(
        "vtk similarity", "--preset", PRESETS, preset_source, {"images": "images", "steps": "steps", "eps": "eps"}
    ),
)
