"""One definition of every option: a field of a dataclass.

From the fields come the flags and the help of a command (through typer), the keys of `--config FILE.toml` (through
click's `default_map`), the resolved `config.toml` of a run, and the tables of the manual. Shared groups are dataclasses
that commands inherit from. Flags win over the file, the file over the recipe, the recipe over the default.

    @dataclass(frozen=True, kw_only=True)
    class BlurOptions(RunOptions):
        sigma: float = option(1.0, "Width of the blur, in pixels.", panel="Blur", above=0)

    app = new_app("Blur things.")
    add_command(app, BlurOptions, run)      # run(options: BlurOptions, console: Console) -> ExitCode | None
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand
from typer.exceptions import TyperException

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, Interrupted, Preempted, Stopped, UserError, nearest


@dataclass(frozen=True)
class OptionInfo:
    """What is known of one option besides its name, type and default."""

    help: str
    panel: str = ""
    short: str = ""
    metavar: str = ""
    positional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    advice: str = ""
    """What to say to somebody whose value is out of range, when the range alone does not tell."""
    parse: Callable[[str], Any] | None = None
    complete: Callable[[str], list[str]] | None = None
    recorded: bool = True
    """Whether the option is part of what a run is: written to its `config.toml`, read from `--config`."""

    @property
    def range(self) -> str:
        """The allowed range in words, e.g. `above 0, at most 1`; empty when any value is allowed."""
        bounds = {"above": self.above, "at least": self.minimum, "at most": self.maximum}
        return ", ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)


def option(
    default: Any,
    help: str,  # noqa: A002 - the name typer and click use
    *,
    panel: str = "",
    short: str = "",
    metavar: str = "",
    positional: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    advice: str = "",
    parse: Callable[[str], Any] | None = None,
    complete: Callable[[str], list[str]] | None = None,
    recorded: bool = True,
) -> Any:
    """A dataclass field that is also an option; the arguments are those of `OptionInfo`."""
    info = OptionInfo(
        help, panel, short, metavar, positional, minimum, maximum, above, advice, parse, complete, recorded
    )
    return dataclasses.field(default=default, metadata={"option": info})


def fraction(text: str) -> float:
    """Read `8/255`, `0.03` or a number: a float.

    Raises:
        ValueError: it is none of these.
    """
    top, slash, bottom = str(text).partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a number such as 0.03 or 8/255") from None


@dataclass(frozen=True, kw_only=True)
class Options:
    """The root of all option groups: knows its fields, checks their ranges, and writes itself down."""

    recipe_option: ClassVar[str] = ""
    """The field that names a recipe, for commands that have recipes."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Recipe name -> {field: value}."""

    @classmethod
    def default_recipe(cls, given: Mapping[str, Any]) -> str:  # noqa: ARG003 - for those who override it
        """The recipe in force when none is named; `given` holds what the flags and the file set. Empty: none."""
        return ""

    @classmethod
    def from_other_files(cls, given: Mapping[str, Any], command: str) -> dict[str, Any]:  # noqa: ARG003 - see above
        """{field: value} from files that the flags `given` name, besides `--config`, which wins over them."""
        return {}

    def __post_init__(self) -> None:
        for name, info in option_fields(type(self)).items():
            _check_range(flag_name(name), info, getattr(self, name))
        self.check()

    def check(self) -> None:
        """Raise `UserError` where options contradict one another."""

    def as_config(self) -> dict[str, Any]:
        """The recorded options, by flag name, with plain TOML values; what is None is left out."""
        recorded = {name: getattr(self, name) for name, info in option_fields(type(self)).items() if info.recorded}
        return {flag_name(name): _plain(value) for name, value in recorded.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(Options):
    """How a command speaks; every command has these."""

    config: Path | None = option(
        None,
        "Read options from a TOML file; flags win over it.",
        panel="Output",
        metavar="FILE",
        recorded=False,
    )
    json: bool = option(False, "Print one JSON object on stdout and nothing else.", panel="Output", recorded=False)
    quiet: bool = option(False, "No progress and no notes.", panel="Output", short="-q", recorded=False)
    verbose: bool = option(False, "Say more.", panel="Output", short="-v", recorded=False)
    debug: bool = option(False, "Show the traceback of an error.", panel="Output", recorded=False)

    def console(self) -> Console:
        """The console these options ask for."""
        return Console(json_output=self.json, quiet=self.quiet, verbose=self.verbose or self.debug)


@dataclass(frozen=True, kw_only=True)
class RunOptions(SpeechOptions):
    """Where and how a job runs; every command that makes a run folder has these."""

    out: Path | None = option(
        None, "The run folder [default: runs/COMMAND/DATE-NAME].", panel="Run", short="-o", metavar="DIR"
    )
    resume: Path | None = option(
        None, "Go on with the run in this folder, with its options.", panel="Run", metavar="DIR", recorded=False
    )
    seed: int = option(0, "Seed of everything random.", panel="Run", minimum=0, maximum=2**32 - 1)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel="Run", metavar="NAME")
    dry_run: bool = option(
        False, "Resolve everything, print the plan, write nothing, stop.", panel="Run", recorded=False
    )


RUN_CONFIG = "config.toml"
"""The file of a run's folder that holds its options."""

SLURM_TABLE = "slurm"
"""The table of a config file that says how `vtk slurm` is to run its command; the command itself passes it over."""

OptionsType = TypeVar("OptionsType", bound=SpeechOptions)


def option_fields(options: type[Options]) -> dict[str, OptionInfo]:
    """Field name -> `OptionInfo`, a group's own options after those it inherits, arguments first."""
    known = {f.name: f.metadata["option"] for f in dataclasses.fields(options) if "option" in f.metadata}
    own_first = sorted(known, key=lambda name: (not known[name].positional, _depth(options, name)))
    return {name: known[name] for name in own_first}


def flag_name(field: str) -> str:
    """`step_size` -> `step-size`: the flag without its dashes, and the key in a config file.

    `recipes_` is `recipes`: a field ends so whose name is taken.
    """
    return field.rstrip("_").replace("_", "-")


def new_app(help: str | None = None) -> typer.Typer:  # noqa: A002 - the name typer and click use
    """A typer application for one subcommand; `vtk_cli.app` finds it as the `app` of its module."""
    return typer.Typer(help=help, add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


def add_command(
    app: typer.Typer,
    options: type[OptionsType],
    run: Callable[[OptionsType, Console], ExitCode | None],
    *,
    name: str | None = None,
    help: str | None = None,  # noqa: A002 - the name typer and click use
    epilog: str | None = None,
) -> None:
    """Add to `app` the command whose options are the fields of `options` and whose work is `run`.

    The help text is `help`, else the docstring of `run`.
    """

    def face(**values: Any) -> None:
        frozen: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        chosen = options(**frozen)
        try:
            code = run(chosen, chosen.console())
        except Stopped as stop:
            raise Preempted(str(stop)) from stop
        except KeyboardInterrupt as stop:  # typer would end without a word
            raise Interrupted(str(stop) or "interrupted") from stop
        raise typer.Exit(int(code or ExitCode.DONE))

    hints = typing.get_type_hints(options)
    parameters = [
        _parameter(field, info, hints[field.name])
        for field, info in ((_field(options, name), info) for name, info in option_fields(options).items())
    ]
    face.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    face.__annotations__ = {p.name: p.annotation for p in parameters}
    # Lines of a paragraph are joined: the terminal breaks them where it must.
    face.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", help or inspect.getdoc(run) or "")
    command_class = type("ConfiguredCommand", (_ConfiguredCommand,), {"options": options})
    app.command(name, cls=command_class, epilog=epilog)(face)


def read_config(path: Path, options: type[Options], command: str, *, section: str = "") -> dict[str, Any]:
    """Read a TOML file of options: {field: value}. Keys may be written with dashes or underscores.

    Args:
        path: the file.
        options: of `command`.
        command: with its verb, `detect train`.
        section: the table of the file that holds them; empty: the file itself but for `[slurm]`.

    Raises:
        UserError: the file cannot be read, is not TOML, has a key that is no option of `command` (the nearest is
            named), or is the config of another command.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", f"--config {path}", str(error)) from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, brackets in brackets
        raise UserError(f"is not TOML: {error}", f"--config {path}") from error
    if section:
        table = table.get(section, {})
        if not isinstance(table, dict):
            raise UserError("is no table", f"{path}:{_line_of(section, text)}, {section}", f"write [{section}]")
    else:
        table.pop(SLURM_TABLE, None)
        written_for = table.pop("command", command)
        if written_for != command:
            raise UserError(f"is the config of `vtk {written_for}`", f"--config {path}", f"this is `vtk {command}`")
    readable = {flag_name(name): name for name, info in option_fields(options).items() if info.recorded}
    values = {}
    for key, value in table.items():
        field = readable.get(flag_name(key))
        if field is None:
            raise UserError(
                f"`vtk {command}` has no option {key!r}",
                f"{path}:{_line_of(key, text)}",
                nearest(flag_name(key), readable) or f"see vtk {command} --help",
            )
        if isinstance(_field(options, field).default, tuple) and not isinstance(value, list):
            raise UserError("is no list", f"{path}:{_line_of(key, text)}, {key}", f'write {key} = ["..."]')
        values[field] = value
    return values


class _ConfiguredCommand(TyperCommand):
    """A typer command whose defaults come from `--config` and from a recipe."""

    options: ClassVar[type[Options]]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        command = ctx.command_path.partition(" ")[2]
        file = self._file(given, command)
        self._refuse_empty(given, "")
        place = f"--config {given['config']}" if given.get("config") else ""
        self._refuse_empty(file, place and f"{place}, ")
        recipe = self._recipe(file | {name: value for name, value in given.items() if value})
        ctx.default_map = {**recipe, **file}
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            parameter = getattr(getattr(error, "param", None), "name", None)
            if parameter in file and not given.get(parameter):
                what = error.format_message().replace("Value error, ", "")
                raise UserError(what, place) from error
            raise

    def _file(self, given: Mapping[str, Any], command: str) -> dict[str, Any]:
        """What `--config` sets, or the config of the run that `--resume` names and its folder."""
        if not given.get("resume"):
            file = read_config(Path(given["config"]), self.options, command) if given.get("config") else {}
            return {**self.options.from_other_files(given, command), **file}
        folder = Path(given["resume"])
        if given.get("config") or given.get("out"):
            raise UserError(
                "a run goes on with its own options in its own folder", "--resume", "leave out --config, --out"
            )
        if not (folder / RUN_CONFIG).is_file():
            raise UserError("holds no run", f"--resume {folder}", "name the folder of a run")
        return {**read_config(folder / RUN_CONFIG, self.options, command), "out": str(folder)}

    def _refuse_empty(self, values: Mapping[str, Any], place: str) -> None:
        """An empty word is what a shell makes of an unset variable; as a path it would be the working directory."""
        known = option_fields(self.options)
        for name, value in values.items():
            words = value if isinstance(value, (list, tuple)) else (value,)
            if any(isinstance(word, str) and not word.strip() for word in words):
                called = known[name].metavar if name in known and known[name].positional else f"--{flag_name(name)}"
                raise UserError("is empty", f"{place}{called}", "give a value or leave it out")

    def _recipe(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.options.recipe_option:
            return {}
        name = given.get(self.options.recipe_option) or self.options.default_recipe(given)
        if name and str(name) not in self.options.recipes:
            raise UserError(
                f"no such {self.options.recipe_option}",
                f"--{flag_name(self.options.recipe_option)} {name}",
                nearest(str(name), self.options.recipes) or f"there are {', '.join(self.options.recipes)}",
            )
        return {**self.options.recipes.get(name, {}), self.options.recipe_option: name or None}


def _parameter(field: dataclasses.Field[Any], info: OptionInfo, hint: Any) -> inspect.Parameter:
    shared: dict[str, Any] = {
        "help": escape(info.help) + (f" [dim]({info.range})[/dim]" if info.range else ""),
        "rich_help_panel": info.panel or None,
        "metavar": info.metavar or None,
        "autocompletion": info.complete,
        "show_default": field.default not in (None, False, ()),
    }
    if info.parse is not None:
        shared["parser"] = info.parse
    if info.positional:
        marker = typer.Argument(**shared)
    else:
        marker = typer.Option(*_declarations(field.name, info, hint), **shared)
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    annotation: Any = Annotated[_list_type(hint), marker]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _declarations(name: str, info: OptionInfo, hint: Any) -> Sequence[str]:
    flag = f"--{flag_name(name)}"
    if hint is bool and info.recorded:
        flag += f"/--no-{flag_name(name)}"
    return (flag, info.short) if info.short else (flag,)


def _list_type(hint: Any) -> Any:
    """`tuple[X, ...]` (what a frozen dataclass holds) as `list[X]` (what typer knows)."""
    if typing.get_origin(hint) is tuple:
        return types.GenericAlias(list, typing.get_args(hint)[:1])
    return hint


def _field(options: type[Options], name: str) -> dataclasses.Field[Any]:
    return next(field for field in dataclasses.fields(options) if field.name == name)


def _depth(options: type[Options], name: str) -> int:
    """How far up the inheritance the field is defined: a command's own options come before the shared groups."""
    owners = [index for index, cls in enumerate(options.__mro__) if name in inspect.get_annotations(cls)]
    return owners[0]


def _check_range(flag: str, info: OptionInfo, value: Any) -> None:
    if value is None or isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        return
    too_low = (info.minimum is not None and value < info.minimum) or (info.above is not None and value <= info.above)
    too_high = info.maximum is not None and value > info.maximum
    if too_low or too_high or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{value} is out of range", f"--{flag}", info.advice or f"give a number {info.range}")


def _plain(value: Any) -> Any:
    if isinstance(value, (Path, Enum)):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _line_of(key: str, text: str) -> int:
    pattern = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[=.\]]|^\s*\[\s*{re.escape(key)}""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
