"""`vtk proof NAME|all`: rerun a method's claim at small scale, with its baselines and every seed.

A subcommand folder joins by a `proof.py` with `prove(seeds, *, smallest, plots, device, console) -> Proof`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.families.discovery import load, members
from vtk_cli.families.marks import insert_in
from vtk_cli.options import SpeechOptions, add_command, new_app, option
from vtk_cli.reports.evidence import Proof

_MOST_SEEDS = 1000


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in [*members("proof"), "all"] if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class ProofOptions(SpeechOptions):
    """Options of `vtk proof`."""

    names: tuple[str, ...] = option(
        (), "Which proofs, or all.", positional=True, metavar="NAME", complete=_complete_name
    )
    seeds: str = option("0-2", "Seeds: 0-2, or 0,3,5.", panel="Run", metavar="SEEDS")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    out: Path = option(
        Path("runs/proof"), "Where NAME/proof.json, proof.md and pictures go.", panel="Run", short="-o", metavar="DIR"
    )
    smallest: bool = option(
        False, "Exercise the machinery in seconds on the smallest settings; claims are not judged.", panel="Run"
    )
    readme: Path | None = option(
        None, "Put the result between the marks <!-- proof NAME --> of this file.", panel="Run", metavar="FILE"
    )

    def check(self) -> None:
        """The seeds can be read."""
        parse_seeds(self.seeds)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-2` or `0,3,5` or both: sorted, each once.

    Raises:
        UserError: it is neither, or more than anybody waits for.
    """
    seeds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"{text!r} are no seeds", "--seeds", "give 0-2 or 0,3,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MOST_SEEDS:
            raise UserError(f"{text!r} are {last - first + 1:,} seeds", "--seeds", f"give at most {_MOST_SEEDS}")
        seeds.update(range(first, last + 1))
    return tuple(sorted(seeds))


def run(options: ProofOptions, console: Console) -> ExitCode:
    """Rerun a method's claim at small scale, its baselines beside it, every seed shown.

    What was trained and attacked is cached, so a stopped proof goes on where it was. Exit code 0 if every claim holds,
    1 if one does not.
    """
    from vtk_cli.engine.devices import resolve_device
    from vtk_cli.files import require_folder, write_json, write_text

    if not options.names:
        raise UserError("which proof?", fix=f"there is {', '.join(members('proof'))}, all")
    require_folder(options.out)
    if options.readme is not None and not options.readme.is_file():
        raise UserError("is no file", f"--readme {options.readme}", "name a Markdown file with the marks of the proof")
    proofs: list[Proof] = []
    for name, module in load("proof", options.names).items():
        folder = options.out / name
        proof: Proof = module.prove(
            parse_seeds(options.seeds),
            smallest=options.smallest,
            plots=folder / "plots",
            device=resolve_device(options.device),
            console=console,
        )
        write_json(folder / "proof.json", proof.as_json())
        write_text(folder / "proof.md", proof.as_markdown())
        if options.readme is not None:
            insert_in(options.readme, f"proof {name}", proof.as_markdown())
        _show(proof, console)
        console.text(f"written to {folder}")
        proofs.append(proof)
    console.emit({"proofs": [proof.as_json() for proof in proofs]})
    judged = options.smallest or all(proof.holds for proof in proofs)
    return ExitCode.DONE if judged else ExitCode.FAILED


def _show(proof: Proof, console: Console) -> None:
    console.text(f"{proof.title}. {proof.setting}")
    for table in proof.tables:
        console.table(table.caption, table.columns, table.rows)
    claims = [(claim.text, claim.target, claim.measured, "yes" if claim.holds else "NO") for claim in proof.claims]
    console.table("Claims", ("claim", "target", "measured", "holds"), claims)
    for sentence in proof.not_claimed:
        console.text(f"Not claimed: {sentence}")


app = new_app()
add_command(app, ProofOptions, run, name="proof", epilog="Examples:  vtk proof similarity   ·   vtk proof all --json")
