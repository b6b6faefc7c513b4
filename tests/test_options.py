"""Options: one definition, and which source wins."""

import contextlib
import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from vtk_cli.errors import Interrupted, UserError
from vtk_cli.options import RunOptions, add_command, fraction, new_app, option, option_fields, read_config


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class BlurOptions(RunOptions):
    recipe_option: ClassVar[str] = "recipe"
    recipes: ClassVar[dict] = {"soft": {"sigma": 4.0, "rounds": 7}, "hard": {"sigma": 0.5}}

    files: tuple[str, ...] = option((), "Files.", positional=True, metavar="FILE")
    recipe: str | None = option(None, "A recipe.")
    sigma: float = option(1.0, "Width.", panel="Blur", above=0, maximum=10)
    rounds: int = option(1, "Times.", panel="Blur", minimum=1)
    eps: float = option(0.5, "A fraction.", panel="Blur", parse=fraction)
    shape: Literal["box", "disc"] = option("box", "Shape.", panel="Blur")
    colour: tuple[Colour, ...] = option((), "Colours.", panel="Blur")
    table: Path | None = option(None, "A table.", panel="Blur")
    fast: bool = option(False, "Fast.", panel="Blur")


@pytest.fixture
def blur():
    """Runs `vtk blur ARGUMENTS` and returns the options it saw."""
    seen = []
    app = typer.Typer()
    add_command(app, BlurOptions, lambda options, console: seen.append(options), name="blur", help="Blur.")

    @app.command()
    def other() -> None:
        """So that `blur` is a subcommand."""

    def run(*arguments):
        command = typer.main.get_command(app)
        command.main([*map(str, ("blur", *arguments))], prog_name="vtk", standalone_mode=False)
        return seen[-1]

    return run


@pytest.fixture
def config(tmp_path):
    """Writes a config file."""

    def write(text):
        path = tmp_path / "blur.toml"
        path.write_text(text)
        return path

    return write


def test_every_option_has_its_default_and_its_flag(blur):
    assert blur() == BlurOptions()
    chosen = blur(
        "a", "b", "--sigma", "2", "--eps", "8/255", "--colour", "red", "--colour", "blue", "--fast", "-o", "x"
    )
    assert chosen.files == ("a", "b")
    assert chosen.colour == (Colour.RED, Colour.BLUE)
    assert (chosen.sigma, chosen.eps, chosen.fast, chosen.out) == (2.0, 8 / 255, True, Path("x"))


def test_flags_win_over_file_over_recipe_over_default(blur, config):
    file = config('recipe = "soft"\nrounds = 3\n')
    assert blur("--config", file).sigma == 4.0  # recipe over default
    assert blur("--config", file).rounds == 3  # file over recipe
    assert blur("--config", file, "--rounds", "5").rounds == 5  # flag over file
    assert blur("--config", file, "--recipe", "hard").sigma == 0.5  # the flag names the recipe
    assert blur("--config", file, "--recipe", "hard").recipe == "hard"
    assert blur("--config", file).shape == "box"


def test_a_flag_can_take_back_what_the_file_switched_on(blur, config):
    file = config('fast = true\nfiles = ["a"]\n')
    assert blur("--config", file).fast
    assert not blur("--config", file, "--no-fast").fast
    assert blur("--config", file).files == ("a",)
    assert blur("--config", file, "b").files == ("b",)


def test_the_resolved_config_repeats_the_run(blur, tmp_path):
    import tomli_w

    chosen = blur("x", "--sigma", "3", "--eps", "1/3", "--colour", "blue", "--table", "t.csv", "--seed", "9")
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps({"command": "blur", **chosen.as_config()}))
    again = blur("--config", file)
    assert dataclasses.replace(again, config=None) == chosen


def test_how_a_command_speaks_is_not_part_of_its_config():
    written = BlurOptions(json=True, quiet=True, dry_run=True).as_config()
    assert not {"json", "quiet", "verbose", "debug", "config", "dry-run"} & set(written)
    assert "sigma" in written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nsigam = 2\n", r"blur.toml:2: `vtk blur` has no option 'sigam'; did you mean sigma"),
        ("json = true\n", "has no option 'json'"),
        ("[sigma]\nx = 1\n", "--config .*sigma"),
        ("sigma = \n", "is not TOML"),
        ('command = "train"\n', "is the config of `vtk train`"),
        ('rounds = "many"\n', "--config .*rounds"),
        ("rounds = 0\n", "--rounds: 0 is out of range; give a number at least 1"),
        ('shape = "star"\n', "--config .*shape"),
        ('recipe = "sof"\n', "no such recipe; did you mean soft"),
        ("recipe = 3\n", "--recipe 3: no such recipe; there are soft, hard"),
        ('recipe = ["soft"]\n', "no such recipe; did you mean soft"),
        ('\nfiles = "a"\n', r'blur.toml:2, files: is no list; write files = \["..."\]'),
        ("eps = {a = 1}\n", "--config .*eps': {'a': 1} is not a number"),
    ],
)
def test_a_wrong_config_is_named_with_its_place(blur, config, text, message):
    with pytest.raises(UserError, match=message):
        blur("--config", config(text))


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--config .*none.toml: cannot be read"):
        read_config(tmp_path / "none.toml", BlurOptions, "blur")
    (tmp_path / "latin.toml").write_bytes(b"sigma = '\xff'")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path / "latin.toml", BlurOptions, "blur")


@pytest.mark.parametrize("value", [0.0, -1.0, 10.5, float("nan")])
def test_a_value_out_of_range_is_refused_wherever_it_comes_from(value):
    with pytest.raises(UserError, match=r"--sigma: .* out of range; give a number above 0, at most 10"):
        BlurOptions(sigma=value)


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_a_fraction_is_read_as_what_it_says(top, bottom):
    assert fraction(f"{top}/{bottom}") == top / bottom
    assert fraction(str(top / bottom)) == top / bottom


@given(st.text(max_size=12))
def test_no_text_makes_the_fraction_reader_raise_anything_but_value_error(text):
    with contextlib.suppress(ValueError):
        fraction(text)


def test_a_commands_own_options_come_before_the_shared_groups():
    names = list(option_fields(BlurOptions))
    assert names[0] == "files"
    assert names.index("sigma") < names.index("seed") < names.index("json")


def test_help_shows_ranges_and_keeps_brackets():
    app = new_app()
    add_command(app, BlurOptions, lambda options, console: None, name="blur", help="Blur.")
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    assert "above 0, at most 10" in shown
    assert "[default: runs/COMMAND/DATE-NAME]" in shown


@pytest.mark.parametrize("story", ["stopped by SIGINT after saving step 3", ""])
def test_an_interrupt_ends_with_its_story_and_code_130(story):
    def stopped(options, console):
        raise KeyboardInterrupt(story)

    app = typer.Typer()
    add_command(app, BlurOptions, stopped, help="Blur.")
    with pytest.raises(Interrupted, match=story or "interrupted") as caught:
        typer.main.get_command(app).main([], standalone_mode=False)
    assert caught.value.exit_code == 130


@pytest.mark.parametrize("arguments", [["--shape", ""], ["--out="], ["a", " "], ["--colour", "red", "--colour", ""]])
def test_an_empty_value_is_refused_and_not_taken_for_the_working_directory(blur, arguments):
    with pytest.raises(UserError, match=r"^(FILE|--\w+): is empty; give a value or leave it out$"):
        blur(*arguments)


def test_an_empty_value_in_a_config_is_named_with_its_file(blur, config):
    with pytest.raises(UserError, match=r"^--config .*blur.toml, --out: is empty"):
        blur("--config", config('out = ""\n'))
