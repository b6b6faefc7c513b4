"""`vtk proof NAME|all`: rerun a method's claim at small scale, with its baselines and every seed.

A subcommand folder joins by a `proof.py` with `prove(seeds, *, smallest, plots, device, console) -> Proof`, and
`work(seeds, *, smallest, device, console, share)`, which makes every piece that `prove` is to find, and gives what was
found: its `repr` is the same in every process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from vtk_cli.console import Console
from vtk_cli.engine.pieces.shard_options import TaskOptions
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.families.discovery import load, members
from vtk_cli.families.marks import insert_in
from vtk_cli.options import add_command, new_app, option
from vtk_cli.reports.evidence import Proof

_MOST_SEEDS = 1000
_RESULT = "proof.json"


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in [*members("proof"), "all"] if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class ProofOptions(TaskOptions):
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
        """The seeds and the shard can be read."""
        super().check()
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

    Seeds and baselines are shared by any number of processes with --shard I/COUNT, as of a Slurm array; one of them
    writes each proof.
    """
    from vtk_cli.engine.devices import resolve_device
    from vtk_cli.files import require_folder

    if not options.names:
        raise UserError("which proof?", fix=f"there is {', '.join(members('proof'))}, all")
    require_folder(options.out)
    if options.readme is not None and not options.readme.is_file():
        raise UserError("is no file", f"--readme {options.readme}", "name a Markdown file with the marks of the proof")
    resolve_device(options.device)
    modules = load("proof", options.names)
    names = [[*modules][number] for number in options.share.order(len(modules))]
    proofs: list[Proof] = []
    others: dict[str, str] = {}
    for name in names:  # tasks begin with different ones, so that few wait for the last piece of one
        if options.shard is None:
            proofs.append(_proved(name, modules[name], options, console))
        else:
            _take_part(name, modules[name], options, console, proofs=proofs, others=others)
    judged = options.smallest or all(proof.holds for proof in proofs)
    shard = {} if options.shard is None else {"shard": options.shard, "assembled_by": others}
    console.emit({"proofs": [proof.as_json() for proof in proofs], **shard})
    return ExitCode.DONE if judged else ExitCode.FAILED


def _work(module: ModuleType, options: ProofOptions, console: Console) -> str:
    """Do a share of a proof and wait for the others'; all that was found."""
    from vtk_cli.engine.devices import resolve_device

    found: object = module.work(
        parse_seeds(options.seeds),
        smallest=options.smallest,
        device=resolve_device(options.device),
        console=console,
        share=options.share,
    )
    return repr(found)


def _proved(name: str, module: ModuleType, options: ProofOptions, console: Console) -> Proof:
    """Make what is missing, unless that is not to be done, and write and show the proof."""
    from vtk_cli.engine.devices import resolve_device
    from vtk_cli.files import write_json, write_text

    if options.merge:
        _work(module, options, console)
    folder = options.out / name
    proof: Proof = module.prove(
        parse_seeds(options.seeds),
        smallest=options.smallest,
        plots=folder / "plots",
        device=resolve_device(options.device),
        console=console,
    )
    write_text(folder / "proof.md", proof.as_markdown())
    write_json(folder / _RESULT, proof.as_json())
    if options.readme is not None:
        insert_in(options.readme, f"proof {name}", proof.as_markdown())
    _show(proof, console)
    console.text(f"written to {folder}")
    return proof


def _take_part(
    name: str,
    module: ModuleType,
    options: ProofOptions,
    console: Console,
    *,
    proofs: list[Proof],
    others: dict[str, str],
) -> None:
    """Do a share of a proof; note it in `proofs` if this is the task that writes it, else in `others` who does."""
    from vtk_cli.engine.pieces.assembly import assembled_once
    from vtk_cli.engine.signals import stop_requests
    from vtk_cli.files import cache_folder

    found = _work(module, options, console)
    if not options.is_task:
        console.text(f"{name}: all pieces are there")
        return

    def assemble() -> Path:
        proofs.append(_proved(name, module, options, console))
        return options.out / name / _RESULT

    about = {
        "proof": name,
        "found": found,
        "seeds": list(parse_seeds(options.seeds)),
        "smallest": options.smallest,
        "device": options.device,
        "place": str(options.out.resolve()),
    }
    with stop_requests() as stop:
        end = assembled_once(cache_folder() / "proof", about, assemble, task=str(options.shard), stop=stop)
    if not end.here:
        console.text(f"{name}: written by {end.by}; look in {end.file.parent}")
        others[name] = end.by


def _show(proof: Proof, console: Console) -> None:
    console.text(f"{proof.title}. {proof.setting}")
    for table in proof.tables:
        console.table(table.caption, table.columns, table.rows)
    claims = [(claim.text, claim.target, claim.measured, "yes" if claim.holds else "NO") for claim in proof.claims]
    console.table("Claims", ("claim", "target", "measured", "holds"), claims)
    for sentence in proof.not_claimed:
        console.text(f"Not claimed: {sentence}")


app = new_app()
add_command(
    app,
    ProofOptions,
    run,
    name="proof",
    epilog="Examples:  vtk proof similarity   ·   vtk proof all --json   ·  "
    " vtk slurm submit --array 8 -- vtk proof all --seeds 0-7 --out runs/proof",
)
