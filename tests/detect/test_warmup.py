"""The warm-up of short trainings: that of a recipe is cut to a tenth, the user's own is kept or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtk_cli.app import main


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory, capsys):
    """Runs `vtk detect train --dry-run ARGUMENTS` on the embedded scenes; gives exit code and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path_factory.getbasetemp() / "cache-detect"))

    def call(*arguments: object) -> tuple[int, str]:
        code = main(["detect", "train", "--model", "vidt-micro", "--dry-run", *map(str, arguments)])
        return code, " ".join(capsys.readouterr().err.split())

    return call


def test_so_few_steps_as_the_recipes_warm_up_takes_can_be_trained(plan):
    code, said = plan("--steps", 50)
    assert code == 0
    assert "5 updates of warm-up, a tenth of 50; the recipe's 50" in said


def test_the_modern_recipe_trains_on_few_images(plan):
    code, said = plan("--recipe", "modern", "--weights", "none", "--images", 32, "--epochs", 10)
    assert code == 0
    assert "2 updates of warm-up, a tenth of 20; the recipe's 1,000" in said


def test_a_training_that_is_long_enough_has_all_of_the_recipes_warm_up(plan):
    code, said = plan("--steps", 500)
    assert code == 0
    assert "warm-up" not in said


def test_a_warm_up_that_was_asked_for_is_not_cut(plan):
    code, said = plan("--steps", 50, "--warmup-steps", 40)
    assert code == 0
    assert "warm-up" not in said
    code, said = plan("--steps", 50, "--warmup-steps", 60)
    assert code == 2
    assert "60 updates of warm-up leave nothing of 50" in said
