"""The manual pages and the completion scripts, made from the commands themselves: `python -m vtk_cli.manual`.

Writes `man/vtk.1`, a page a subcommand, pages of the README's chapters on clusters and on what is guaranteed, and
`completions/` for bash, zsh and fish into the current directory, which is a clone.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from vtk_cli import __version__
from vtk_cli.app import SUBCOMMANDS, app
from vtk_cli.errors import ExitCode
from vtk_cli.files import write_text
from vtk_cli.roff import markdown_as_roff, roff

_README = Path(__file__).parents[1] / "README.md"
_RELEASED = "2026-11-23"
_COMPLETIONS = {"bash": "vtk.bash", "zsh": "_vtk", "fish": "vtk.fish"}
_EXIT_STATUS = {
    ExitCode.DONE: "done.",
    ExitCode.FAILED: "the job failed: a full disk, a loss that is not finite, a claim that does not hold.",
    ExitCode.USAGE: "wrong usage or wrong input; one line on standard error says what, where, and what would be right.",
    ExitCode.PREEMPTED: "stopped by SIGTERM or SIGUSR1 after its state was saved: queue it again.",
    ExitCode.INTERRUPTED: "interrupted.",
}
_ENVIRONMENT = {
    "VTK_CACHE": "the folder for embedded datasets, trained networks and finished rows; by default that of the user.",
    "VTK_KERNELS": "forces a backend of the fused operators: reference, cpu, triton or cuda; see `vtk doctor`.",
    "HF_HUB_OFFLINE": "set to 1, published weights are looked for on this machine only.",
    "NO_COLOR": "set, nothing is coloured.",
}


def files() -> dict[Path, str]:
    """Every generated file and what it holds."""
    group = typer.main.get_command(app)
    pages = {Path("man/vtk.1"): _page("vtk", group, {name: line for name, (_, line) in SUBCOMMANDS.items()})}
    for name, (module, _) in SUBCOMMANDS.items():
        command = typer.main.get_command(importlib.import_module(module).app)
        pages[Path(f"man/vtk-{name}.1")] = _page(f"vtk {name}", command, {})
    pages[Path("man/vtk-scale.7")] = _chapter("vtk-scale", "From a laptop to a cluster")
    pages[Path("man/vtk-guarantees.7")] = _chapter("vtk-guarantees", "What is guaranteed")
    return pages | {Path("completions", file): _completion(shell) for shell, file in _COMPLETIONS.items()}


def _completion(shell: str) -> str:
    """The script with which `shell` asks the program itself for completions."""
    asked = {**os.environ, "_VTK_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "vtk_cli"]
    script = subprocess.run(command, env=asked, capture_output=True, text=True, check=True).stdout
    return f"{script.strip()}\n"


def _page(name: str, command: Any, children: Mapping[str, str]) -> str:
    """One manual page, in roff."""
    title = name.replace(" ", "-")
    verbs = {} if children else _verbs(command)
    itself = verbs.pop(name.rpartition(" ")[2], None if verbs else command)  # what runs where no verb is named
    about = inspect.cleandoc((itself or command).help or "").split("\n\n")
    lines = [
        f'.TH {title.upper()} 1 {_RELEASED} "vtk {__version__}" "vtk manual"',
        ".SH NAME",
        f"{roff(title)} \\- {roff(' '.join(about[0].split()).rstrip('.'))}",
        ".SH SYNOPSIS",
    ]
    for words, one in [(name, itself), *((f"{name} {verb}", each) for verb, each in verbs.items())]:
        if one is not None:
            lines += [".nf", f".B {roff(words)} {roff(_usage(one))}", ".fi"]
    lines += [".SH DESCRIPTION", *_paragraphs(roff(" ".join(paragraph.split())) for paragraph in about[1:] or about)]
    if children:
        lines += [".SH COMMANDS"]
        for child, line in children.items():
            lines += [".TP", f".BR vtk\\-{roff(child)} (1)", roff(line)]
    if itself is not None:
        lines += [".SH OPTIONS", *_parameters(itself)]
    for verb, each in verbs.items():
        lines += [f".SH {roff(verb.upper())}", roff(" ".join(inspect.cleandoc(each.help or "").split()))]
        lines += [*_parameters(each)]
    if examples := [example for one in (itself, *verbs.values()) if one is not None for example in _examples(one)]:
        lines += [".SH EXAMPLES", ".nf", *(roff(example) for example in examples), ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, meaning in _EXIT_STATUS.items():
        lines += [".TP", f".B {int(code)}", roff(meaning)]
    lines += [".SH ENVIRONMENT"]
    for variable, meaning in _ENVIRONMENT.items():
        lines += [".TP", f".B {roff(variable)}", roff(meaning)]
    others = [other for other in ("vtk", *(f"vtk-{child}" for child in SUBCOMMANDS)) if other != title]
    chapter = ["\\fBvtk\\-scale\\fR(7)"] if children else []
    lines += [".SH SEE ALSO", ", ".join([*(f"\\fB{roff(other)}\\fR(1)" for other in others), *chapter])]
    return "\n".join(lines) + "\n"


def _chapter(title: str, heading: str) -> str:
    """A chapter of the README as a manual page of section 7."""
    readme = _README.read_text(encoding="utf-8")
    body = re.split(rf"^## {re.escape(heading)}\n", readme, flags=re.MULTILINE)[1]
    lines = [
        f'.TH {title.upper()} 7 {_RELEASED} "vtk {__version__}" "vtk manual"',
        ".SH NAME",
        f"{roff(title)} \\- {roff(heading)}",
        ".SH DESCRIPTION",
        *markdown_as_roff(re.split(r"^## ", body, flags=re.MULTILINE)[0]),
        ".SH SEE ALSO",
        ", ".join(f"\\fB{roff(other)}\\fR(1)" for other in ("vtk", "vtk-slurm", "vtk-bench")),
    ]
    return "\n".join(lines) + "\n"


def _verbs(command: Any) -> dict[str, Any]:
    """The commands of a group; those of a group within it by both words, `points make`."""
    found: dict[str, Any] = {}
    for verb, each in getattr(command, "commands", {}).items():
        inner = _verbs(each)
        found |= {f"{verb} {word}": one for word, one in inner.items()} if inner else {verb: each}
    return found


def _examples(command: Any) -> list[str]:
    """The command lines of a command's epilog."""
    return [
        example.strip() for example in re.split(r"\s*·\s*", (command.epilog or "").removeprefix("Examples:")) if example
    ]


def _paragraphs(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in (".PP", text)][1:]


def _usage(command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    names = [f"{p.metavar or p.name.upper()}{'...' if p.nargs == -1 else ''}" for p in arguments]
    shown = [name if p.required else f"[{name}]" for p, name in zip(arguments, names, strict=True)]
    kind = "COMMAND" if getattr(command, "commands", None) else ""
    return " ".join(["[OPTIONS]", *shown, kind]).strip()


def _parameters(command: Any) -> Iterator[str]:
    """The options of a command, in the groups of its help."""
    panel = None
    for parameter in command.params:
        heading = parameter.rich_help_panel or ""
        if heading != panel and heading:
            yield f".SS {roff(heading)}"
        panel = heading
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        metavar = parameter.metavar or _choices(parameter, command)
        if parameter.param_type_name == "argument":
            names, metavar = metavar or str(parameter.name).upper(), ""
        yield ".TP"
        yield f"\\fB{roff(names)}\\fR" + (f" \\fI{roff(metavar)}\\fR" if metavar else "")
        yield roff(Text.from_markup(parameter.help or "").plain) + _default(parameter)


def _choices(parameter: Any, command: Any) -> str:
    """`pgd|apgd` of an option that takes one of a few words; empty for others."""
    shown = str(parameter.display_type(typer.Context(command)))
    return shown.strip("<>") if "|" in shown else ""


def _default(parameter: Any) -> str:
    if not parameter.show_default or parameter.default in (None, False, (), []):
        return ""
    value = parameter.default
    return roff(f" [default: {value:.6g}]" if isinstance(value, float) else f" [default: {value}]")


if __name__ == "__main__":
    for path, content in files().items():
        write_text(path, content)
