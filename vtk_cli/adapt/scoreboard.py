"""What was measured after each round: the rows of `metrics.jsonl` and `metrics.csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtk_cli.adapt.audit import AuditedAccuracy, audited_accuracy, has_levelled_off
from vtk_cli.adapt.images import DomainImages
from vtk_cli.adapt.learner import Learner
from vtk_cli.adapt.ledger import LabelRow, Partition
from vtk_cli.adapt.measuring import NetworkOutputs, measure, measure_unsupervised, network_outputs
from vtk_cli.adapt.preparation import Lab
from vtk_cli.adapt.run_files import RunFiles, csv_text
from vtk_cli.adapt.stages import StageOutcome, pool_scores
from vtk_cli.errors import UserError
from vtk_cli.files import write_text

Row = dict[str, Any]
ACCURACIES = {
    "acc_pool_unlabelled": "target without label",
    "acc_pool_all": "whole target",
    "acc_test": "test",
}
_TRIO = ("right", "judged", "low", "high")


def metrics_of(
    lab: Lab, learner: Learner, part: Partition, rows: Sequence[LabelRow], stage: StageOutcome | None = None
) -> Row:
    """Measure a network on its target, as far as labels are known; no training sees any of it.

    Args:
        lab: of the run.
        learner: its network.
        part: of the pool as it is now.
        rows: of the ledger, for the audit.
        stage: the unlabelled stage that went before.

    Returns:
        JSON values; accuracies in percent; None of what cannot be known.
    """
    pool, truth = lab.pool, lab.domains.truth
    outputs = pool_scores(learner.parts, lab.target, range(len(pool)), lab.circumstances)
    unlabelled = torch.zeros(len(pool), dtype=torch.bool)
    unlabelled[pool.rows(part.without_label)] = True
    found: Row = {}
    test = None if lab.test is None else (outputs_of(lab, learner, lab.test), _test_labels(lab))
    if lab.domains.is_labelled:
        labels = torch.tensor([truth[name] for name in pool.ids], dtype=torch.int64)
        pseudo = None if stage is None else stage.pseudo_labels
        found |= asdict(measure(outputs, labels, unlabelled, test=test, pseudo_labels=pseudo))
    elif test is not None:
        unknown = NetworkOutputs(outputs.logits[:0], outputs.embeddings[:0], outputs.predicted_losses[:0])
        nothing = torch.zeros(0, dtype=torch.int64)
        found |= asdict(measure(unknown, nothing, nothing.bool(), test=test))
    rest = NetworkOutputs(
        outputs.logits[unlabelled], outputs.embeddings[unlabelled], outputs.predicted_losses[unlabelled]
    )
    blind = measure_unsupervised(rest, None if stage is None else stage.agreement)
    found |= {"mean_entropy": blind.mean_entropy, "agreement": blind.agreement, "histogram": list(blind.histogram)}
    if part.audit:
        best = outputs.logits.argmax(dim=1).tolist()
        said = {name: lab.class_names[best[pool.row_of[name]]] for name in part.audit}
        audited = audited_accuracy(rows, part.audit, said)
        found["audit"] = {name: getattr(audited, name) for name in _TRIO}
    return found


def outputs_of(lab: Lab, learner: Learner, images: DomainImages, rows: Sequence[int] | None = None) -> NetworkOutputs:
    """Outputs of images of a set, all of them if `rows` is None, under the target's normalisation."""
    return network_outputs(
        learner.network,
        images,
        range(len(images)) if rows is None else rows,
        batch_size=lab.circumstances.scoring_batch,
        precision=lab.circumstances.precision,
        world=lab.circumstances.world,
    )


def read_metrics(files: RunFiles) -> list[Row]:
    """The rows of all rounds, in order; none before the first. Raises `UserError` where the file is damaged."""
    path = jsonl(files)
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError as error:
        raise UserError(f"cannot be read ({error})", str(path), "restore the file") from error


def put_metrics(files: RunFiles, row: Row) -> None:
    """Write a round's row, in place of what there is of it and of later rounds."""
    write_metrics(files, [*(one for one in read_metrics(files) if one["round"] < row["round"]), row])


def write_metrics(files: RunFiles, rows: Sequence[Row]) -> None:
    """Write all rows, as JSON lines and as CSV."""
    write_text(jsonl(files), "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in {"histogram", "audit"}))
    cells = [["" if row.get(name) is None else row[name] for name in columns] for row in rows]
    write_text(files.metrics, csv_text([columns, *cells]))


def jsonl(files: RunFiles) -> Path:
    """Where the rows are as JSON lines."""
    return files.folder / "metrics.jsonl"


def audits(rows: Sequence[Mapping[str, Any]]) -> list[AuditedAccuracy]:
    """The accuracies of the audit, round by round; of rounds in which it was labelled."""
    return [AuditedAccuracy(**row["audit"]) for row in rows if row.get("audit") and row["audit"]["judged"]]


def levelled_off(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the audit sees no more gain."""
    return has_levelled_off(audits(rows))


def _test_labels(lab: Lab) -> Tensor:
    test = lab.domains.test
    return torch.zeros(0, dtype=torch.int64) if test is None else test.targets
