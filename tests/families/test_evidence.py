"""Proofs and benches: what they hand back, and how the families find and judge them."""

import json
from pathlib import Path

import pytest

from vtk_cli.app import main
from vtk_cli.errors import UserError
from vtk_cli.families.discovery import load, members
from vtk_cli.families.marks import insert_in
from vtk_cli.families.proof import parse_seeds
from vtk_cli.reports.evidence import BenchRow, Claim, Proof, rows_as_markdown
from vtk_cli.reports.page import Table

PAIRS = (("one", 5.0), ("two", None))


def proof(*holds):
    claims = [Claim(f"claim {index}", "above 0", "1", hold) for index, hold in enumerate(holds)]
    return Proof("toy", "A toy", "On nothing.", [Table(("a", "b|c"), [(1, 2)], "Numbers")], claims, ("More.",))


def test_a_proof_holds_when_every_claim_does():
    assert proof(True, True).holds
    assert not proof(True, False).holds


def test_a_proof_as_markdown_has_its_tables_claims_and_what_is_not_claimed():
    text = proof(True, False).as_markdown()
    assert "| a | b\\|c |\n|---|---|\n| 1 | 2 |" in text
    assert "| claim 1 | above 0 | 1 | **no** |" in text
    assert text.endswith("Not claimed: More.\n")


def test_a_proof_as_json_can_be_written():
    assert json.loads(json.dumps(proof(True).as_json()))["holds"] is True


@pytest.mark.parametrize(("target", "holds"), [(None, True), (4.0, True), (4.1, False)])
def test_a_bench_row_holds_when_its_ratio_reaches_the_target(target, holds):
    row = BenchRow("work", 0.5, 2.0, "peer", target, "cpu", {"torch": "2"})
    assert row.ratio == 4.0
    assert row.holds is holds
    assert json.loads(json.dumps(row.as_json()))["ratio"] == 4.0


def test_bench_rows_as_markdown_name_the_machine_and_the_versions_once():
    rows = [BenchRow(name, 0.001, 0.004, "a|b", target, "a processor", {"torch": "2"}) for name, target in PAIRS]
    text = rows_as_markdown(rows)
    assert "| one | 1 | 4 | a\\|b | 4.0x | >= 5x | **no** |  |" in text
    assert "| two | 1 | 4 | a\\|b | 4.0x | - | yes |  |" in text
    assert text.endswith("\n\nOn a processor; torch 2.\n")


@pytest.mark.parametrize(("text", "seeds"), [("0-2", (0, 1, 2)), ("3", (3,)), ("5,0-1,1", (0, 1, 5)), (" 7 - 8", None)])
def test_seeds_are_read_as_ranges_and_lists(text, seeds):
    if seeds is None:
        with pytest.raises(UserError, match="are no seeds"):
            parse_seeds(text)
    else:
        assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "2-1", "-1", "1,,2", "1-2-3", "1.5"])
def test_what_are_no_seeds_is_refused(text):
    with pytest.raises(UserError, match="give 0-2 or 0,3,5"):
        parse_seeds(text)


def test_every_subcommand_folder_with_the_file_is_a_member_and_two_benches_are_of_none():
    import vtk_cli

    for family in ("proof", "bench"):
        folders = [path.parent.name for path in Path(vtk_cli.__path__[0]).glob(f"*/{family}.py")]
        modules = {f"vtk_cli.{folder}.{family}" for folder in folders if folder != "families"}
        own = {"vtk_cli.families.kernels", "vtk_cli.families.scale"} if family == "bench" else set()
        assert set(members(family).values()) == modules | own
        assert members(family)["similarity"] == f"vtk_cli.similarity.{family}"


def test_a_member_is_loaded_by_name_and_a_wrong_name_gets_the_nearest():
    assert load("bench", ("all",)).keys() == members("bench").keys()
    with pytest.raises(UserError, match=r"did you mean similarity\?"):
        load("proof", ("similarty",))


def test_a_result_replaces_what_is_between_its_marks(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- proof toy -->\nold\n<!-- end -->\nafter\n<!-- proof other -->\n<!-- end -->\n")
    for _ in range(2):
        insert_in(page, "proof toy", "new \\1\n")
    assert page.read_text() == (
        "before\n<!-- proof toy -->\nnew \\1\n<!-- end -->\nafter\n<!-- proof other -->\n<!-- end -->\n"
    )
    with pytest.raises(UserError, match="has no marks for bench toy cpu"):
        insert_in(page, "bench toy cpu", "x")
    with pytest.raises(UserError, match="cannot be read"):
        insert_in(tmp_path / "none.md", "proof toy", "x")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_the_smallest_proof_runs_to_the_end_and_a_second_time_from_the_cache(place, capsys):
    arguments = ["proof", "similarity", "--smallest", "--seeds", "0", "--json", "--quiet"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    (shown,) = first["proofs"]
    assert {claim["text"] for claim in shown["claims"]} >= {"the attack fools its own network"}
    for name in ("proof.json", "proof.md", "plots/families.png", "plots/families.svg"):
        assert (place / "runs" / "proof" / "similarity" / name).stat().st_size > 0
    trained = {path: path.stat().st_mtime_ns for path in place.rglob("model.safetensors")}
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert trained == {path: path.stat().st_mtime_ns for path in place.rglob("model.safetensors")}


@pytest.mark.slow
def test_the_smallest_bench_measures_both_ways_and_finds_the_same_scores(place, capsys):
    assert main(["bench", "similarity", "--smallest", "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["ours"] > 0
    assert row["theirs"] > 0
    assert "3 attacks against 6; scores differ by at most 0" in row["note"]


@pytest.mark.slow
def test_the_smallest_bench_of_the_kernels_measures_every_operator_and_fills_a_readme(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("<!-- bench kernels cpu -->\n<!-- end -->\n")
    arguments = ["bench", "kernels", "--smallest", "--device", "cpu", "--readme", str(page), "--json", "--quiet"]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["name"].partition(",")[0] for row in rows} >= {
        "deformable_attention",
        "frequency_filter",
        "random_keep + keep_tokens",
        "random_keep + mask_patches",
    }
    for row in rows:
        assert min(row["ours"], row["theirs"], row["copy"], row["bytes"]) > 0
        assert row["share_of_copy"] == row["copy"] / row["ours"]
        assert (row["target"], row["share_target"], row["holds"]) == (None, None, True)
    assert page.read_text().count("\n| ") == len(rows) + 1
