"""The README and the check that runs for every change say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme():
    _, test_command, *_ = blocks("bash")
    script = (ROOT / ".ci" / "run").read_text()
    assert test_command in script
    around = [line for line in script.replace(test_command, "").splitlines() if line and not line.startswith("#")]
    assert around == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', ".ci/install-slurm"]


def test_the_first_command_ends_in_a_comparison():
    assert blocks("bash")[0].rstrip().endswith("vtk similarity resnet50 vit_b")


def test_the_python_example_runs():
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own README
