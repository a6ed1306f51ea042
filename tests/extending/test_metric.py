"""A metric is one entry with its function: then sites measure it, messages carry it, and reports and MLflow show it."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from sklearn.metrics import matthews_corrcoef

from msfl_common.config.base import validate
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.messages.records import unpack_metrics
from msfl_common.metrics import classification, segmentation
from msfl_common.metrics.registry import ALL_METRICS, TASK_METRICS
from msfl_common.metrics.segmentation import METRICS, NATIVE
from msfl_common.models.starting_weights import starting_weights
from msfl_server.report.page import write_report
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.research.small_cohort.measures import measure, metric_names
from msfl_server.results.summary import Summary
from msfl_server.rounds.loop import run_rounds
from msfl_server.run.summarise import summarise_run
from msfl_server.tracking.mlflow_tracker import track
from tests.extending import example_metric as example
from tests.server.rounds.test_classification import Recorder, grid_of

REPOSITORY = Path(__file__).parents[2]
FILES_TOUCHED = ("common/msfl_common/metrics/segmentation.py",)  # or classification.py, for one of an outcome


def add(patch: pytest.MonkeyPatch, module: ModuleType, table: str) -> set[str | None]:
    """Add the example's entries to a table as an edit of its module would: the files that are touched."""
    for name, metric in getattr(example, table).items():
        patch.setitem(getattr(module, table), name, metric)
        if module is segmentation:  # made of the table as the module is read
            patch.setitem(segmentation.NATIVE_METRICS, f"{name}{NATIVE}", segmentation.on_own_grid(metric))
    return {inspect.getsourcefile(module)}


def run(study: StudyConfig, sites: Any, out: Path) -> Summary:
    recorder = Recorder()
    run_rounds(grid_of(sites), study, starting_weights(study), out, recorder)
    summary = summarise_run(study, recorder.states[-1])
    write_report(out, summary, study)
    return summary


def test_a_metric_of_a_case_goes_from_the_site_to_the_report(
    monkeypatch: pytest.MonkeyPatch,
    make_site: Callable[..., Any],
    tiny_study: StudyConfig,
    tmp_path: Path,
    ready_store: Path,
) -> None:
    assert add(monkeypatch, segmentation, "METRICS") == {str(REPOSITORY / file) for file in FILES_TOUCHED}
    site = make_site(subjects=[f"sub-{number}" for number in range(4)]).config(policy=Policy(min_patients=1))
    rounds = tiny_study.rounds.model_copy(update={"num_rounds": 1, "quorum": 1})
    study, out = tiny_study.model_copy(update={"rounds": rounds}), tmp_path / "out"
    summary = run(study, (site,), out)
    found = summary.metrics["lesion_count_difference"]
    assert found.mean >= 0
    assert list(found.per_site) == ["here"]
    assert [name for name in summary.metrics if name in METRICS][-1] == "lesion_count_difference"
    assert summary.metrics["lesion_count_difference_native"].mean >= 0
    assert "Lesions too many or too few, own grid" in (out / "report.html").read_text()
    shutil.copy(ready_store, tmp_path)
    with track(store := f"sqlite:///{tmp_path}/mlflow.db", tmp_path, study, None) as tracker:
        tracker.log_round(summary.history[0], summary.metrics)
    assert MlflowClient(store).get_run(tracker.run_id).data.metrics["lesion_count_difference"] == found.mean


def test_a_metric_of_a_confusion_matrix_goes_to_the_pipelines_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(add(monkeypatch, classification, "CLASSIFICATION_METRICS")) == 1
    assert "mcc" in ALL_METRICS
    make_records(tmp_path / "patients", num_sites=1, cases_per_site=60)
    content = {
        "name": "outcomes",
        "task": "classification",
        "min_patients": 2,
        "rounds": {"quorum": 1},
        "classification": {"outcome": {"endpoint": "edss-worsening"}, "model": {"kind": "lda"}},
    }
    study = validate(StudyConfig, content, "study")
    summary = run(study, sites_of_cohort(tmp_path / "patients", tmp_path, study), tmp_path / "out")
    assert summary.classification is not None
    confusion = summary.classification.confusion
    assert confusion is not None
    true, predicted = (np.repeat([0, 0, 1, 1], confusion.ravel()), np.repeat([0, 1, 0, 1], confusion.ravel()))
    assert summary.metrics["mcc"].mean == pytest.approx(matthews_corrcoef(true, predicted))
    assert "Matthews correlation" in (tmp_path / "out" / "report.html").read_text()

    scores_LNK, labels_N = np.random.default_rng(0).normal(size=(3, 40, 4)), np.arange(40) % 4
    assert metric_names() == ("accuracy", "balanced_accuracy", "auroc", "f1", "mcc")
    expected = [matthews_corrcoef(labels_N, scores_NK.argmax(axis=1)) for scores_NK in scores_LNK]
    assert measure(scores_LNK, labels_N)["mcc"].tolist() == pytest.approx(expected)


def test_what_rests_on_the_threshold_is_withheld_with_it_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, classification, "CLASSIFICATION_METRICS")
    assert "mcc" in classification.threshold_metrics()
    assert "mcc" in classification.class_metrics()
    from flwr.app import MetricRecord, RecordDict

    def content(mean: float) -> RecordDict:
        numbers: Mapping[str, float] = {"num-examples": 9, "seconds": 1.0, "mcc.mean": mean, "mcc.num_cases": 9}
        return RecordDict({"metrics": MetricRecord(dict(numbers))})

    names = frozenset(TASK_METRICS["classification"])
    assert unpack_metrics(content(-0.5), names).estimates["mcc"].mean == -0.5
    with pytest.raises(UpdateError, match="mcc"):
        unpack_metrics(content(-1.5), names)


def test_without_its_entry_it_is_no_metric() -> None:
    assert not {"mcc", "lesion_count_difference"} & set(ALL_METRICS)
