"""Whole runs of pipelines: nested estimates, permutations, and a run that is interrupted and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.commands import run_main, take_interrupts

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.system.seeds import derive_seed
from msfl_server.cli.main import main
from msfl_server.research.small_cohort.files import results_document
from msfl_server.research.small_cohort.folds import deal_patients
from msfl_server.research.small_cohort.measures import measure
from msfl_server.research.small_cohort.pipelines import run_pipelines
from msfl_server.research.small_cohort.setup import BLOCKS, SETUP_FILE, PipelineSettings, claim_out
from msfl_server.research.small_cohort.space import all_pipelines
from msfl_server.research.small_cohort.steps import prepare_split, row_scaled, scale_rows, score_split

FOLDERS = [str(Path(__file__).parents[4] / side) for side in ("common", "client", "server")]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}
CLASSIFIERS = ("SVM_LIN", "KNN")
STUDY = """\
name: tiny
task: classification
seed: 3
classification:
  outcome: {column: course, classes: [RRMS, SPMS]}
  model: {kind: lda}
"""


def tiny_cases() -> Dataset:
    """12 cases x 8 features, two of which tell the class."""
    rng = np.random.default_rng(5)
    labels = (np.arange(12) % 2).astype(np.int64)
    features = np.round(rng.normal(size=(12, 8)), 6)
    features[:, :2] += 1.5 * labels[:, None]
    return Dataset(tuple("abcdefgh"), features, labels, tuple(f"sub-{number:02d}" for number in range(12)))


SETTINGS = PipelineSettings(
    "tiny",
    ("RRMS", "SPMS"),
    seed=3,
    classifiers=CLASSIFIERS,
    counts=(100,),
    permutations=12,
    best=2,
    searches=("grid",),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in one process, never interrupted, with the stages that it told."""
    out, told = tmp_path_factory.mktemp("pipelines") / "out", []
    results = run_pipelines(tiny_cases(), SETTINGS, out, on_progress=lambda *stage: told.append(stage))
    return out, results, told


@pytest.mark.slow
def test_every_case_is_told_and_stages_are_counted(finished) -> None:
    _, results, told = finished
    assert told[0] == ("pipelines", 0, 12 + 15)
    assert told[27] == ("pipelines", 27, 27)
    assert told[27 + 13] == ("permutations", 12, 12)
    assert told[-3:] == [("grid search", 12, 12), ("weights", 0, 1), ("weights", 1, 1)]
    assert len(results.rows) == 2 * 27
    assert [row.chance is not None for row in results.rows].count(True) == 4
    assert results.best[0].scored.metrics["accuracy"] == max(row.scored.metrics["accuracy"] for row in results.rows)
    assert [row.chance is not None for row in results.best_of("KNN", 3)] == [True, True, False]


@pytest.mark.slow
def test_the_nested_estimate_by_brute_force(finished) -> None:
    _, results, _ = finished
    cases = tiny_cases()
    pipelines, rows = all_pipelines(8, (100,)), np.arange(12)
    blocks = deal_patients(cases.labels_N, cases.patients, BLOCKS, derive_seed(3, "blocks"))
    features, right = row_scaled(cases.features_NP, None), 0

    def told(train, test):
        return score_split(features, cases.labels_N, train, test, pipelines, ("KNN",), 3).scores_MLTK[0].argmax(axis=2)

    for block in range(BLOCKS):
        inner = np.zeros(27)
        for other in set(range(BLOCKS)) - {block}:
            train, test = rows[(blocks != block) & (blocks != other)], rows[blocks == other]
            inner += (told(train, test) == cases.labels_N[test]).sum(axis=1)
        for case in rows[blocks == block]:
            right += told(np.delete(rows, case), np.array([case]))[inner.argmax(), 0] == cases.labels_N[case]
    nested = next(one for one in results.nested if one.classifier == "KNN")
    assert nested.scored.metrics["accuracy"] == pytest.approx(right / 12)
    assert sum(nested.chosen.values()) == BLOCKS


@pytest.mark.slow
def test_hyperparameters_are_tuned_with_the_pipeline_that_is_best_without_the_case(finished) -> None:
    """By brute force: the nested estimate's choice for the case's block, and every fold of the search fitted anew."""
    _, results, _ = finished
    tuned = next(one for one in results.tuned if one.classifier == "KNN")
    cases, pipelines, right, chosen = tiny_cases(), all_pipelines(8, (100,)), 0, Counter()
    blocks = deal_patients(cases.labels_N, cases.patients, BLOCKS, derive_seed(3, "blocks"))
    features, rows = row_scaled(cases.features_NP, None), np.arange(12)

    def told(train, test, pipeline, neighbours=5):
        train_NP, test_NP = prepare_split(features, cases.labels_N, train, test, pipeline)
        return KNeighborsClassifier(neighbours).fit(train_NP, cases.labels_N[train]).predict(test_NP)

    for case in rows:
        others = sorted({*range(BLOCKS)} - {blocks[case]})
        splits = [(rows[(blocks != blocks[case]) & (blocks != one)], rows[blocks == one]) for one in others]
        inner = [sum((told(*split, one) == cases.labels_N[split[1]]).sum() for split in splits) for one in pipelines]
        best, left = pipelines[int(np.argmax(inner))], np.delete(rows, case)
        chosen[best.name] += 1
        folds = deal_patients(cases.labels_N[left], [cases.patients[row] for row in left], 5, derive_seed(3, "inner"))
        counts = [
            sum((told(left[folds != fold], left[folds == fold], best, k) == cases.labels_N[left[folds == fold]]).sum()
                for fold in range(5))
            for k in (1, 3, 5, 7)
        ]  # fmt: skip
        right += told(left, rows[[case]], best, (1, 3, 5, 7)[int(np.argmax(counts))])[0] == cases.labels_N[case]
    assert tuned.pipelines == chosen
    assert tuned.scored.metrics["accuracy"] == pytest.approx(right / 12)


@pytest.mark.slow
def test_tuned_classifiers_by_scikit_learn(finished, tmp_path: Path) -> None:
    out, *_ = finished
    shutil.copytree(out / "cells", tmp_path / "out" / "cells", ignore=shutil.ignore_patterns("search-*"))
    settings = replace(SETTINGS, search_pipeline="standard")
    shutil.copy(out / "setup.json", tmp_path / "out")
    with pytest.raises(InputError, match="was started with other search_pipeline"):
        run_pipelines(tiny_cases(), settings, tmp_path / "out")
    (tmp_path / "out" / "setup.json").write_text(
        (out / "setup.json").read_text().replace('"search_pipeline": "best"', '"search_pipeline": "standard"')
    )
    results = run_pipelines(tiny_cases(), settings, tmp_path / "out")
    tuned = next(one for one in results.tuned if one.classifier == "KNN")
    assert tuned.pipelines == {"row standard, column standard": 12}
    cases, right, chosen = tiny_cases(), 0, []
    scaled = scale_rows(cases.features_NP, "standard")
    for case in range(12):
        rows = np.delete(np.arange(12), case)
        folds = deal_patients(cases.labels_N[rows], [cases.patients[row] for row in rows], 5, derive_seed(3, "inner"))
        search = GridSearchCV(
            make_pipeline(StandardScaler(), KNeighborsClassifier()),
            {"kneighborsclassifier__n_neighbors": [1, 3, 5, 7]},
            cv=PredefinedSplit(folds),
            scoring=lambda model, x, y: (model.predict(x) == y).sum(),
        ).fit(scaled[rows], cases.labels_N[rows])
        right += search.predict(scaled[[case]])[0] == cases.labels_N[case]
        chosen.append(search.best_params_["kneighborsclassifier__n_neighbors"])
    assert tuned.scored.metrics["accuracy"] == pytest.approx(right / 12)
    assert tuned.hyper == {"n_neighbors": np.median(chosen)}


@pytest.mark.slow
def test_permutations_refit_everything_on_shuffled_labels(finished) -> None:
    _, results, _ = finished
    row = next(row for row in results.best if row.chance is not None)
    cases, accuracies = tiny_cases(), []
    for number in range(12):
        rng = np.random.default_rng(derive_seed(3, "permutation", number))
        labels = rng.permutation(cases.labels_N)
        told = [
            score_split(
                row_scaled(cases.features_NP, None), labels, np.delete(np.arange(12), case), np.array([case]),
                (row.pipeline,), (row.classifier,), 3,
            ).scores_MLTK[0]
            for case in range(12)
        ]  # fmt: skip
        accuracies.append(measure(np.concatenate(told, axis=1), labels)["accuracy"][0])
    assert row.chance.mean == pytest.approx(np.mean(accuracies))
    assert row.chance.z == pytest.approx(
        (row.scored.metrics["accuracy"] - np.mean(accuracies)) / np.std(accuracies, ddof=1)
    )


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_a_folder_whose_beginning_is_damaged_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / SETUP_FILE).write_text(content)
    with pytest.raises(InputError, match=r"was started with other .*choose another --output"):
        claim_out(tmp_path, tiny_cases(), SETTINGS)


@pytest.mark.slow
def test_a_folder_of_other_cases_or_settings_is_refused(finished) -> None:
    out, results, _ = finished
    cases = tiny_cases()
    changed = replace(cases, features_NP=cases.features_NP + 1e-9)
    for with_cases, settings, what in (
        (changed, SETTINGS, "cases"),
        (cases, replace(SETTINGS, seed=4), "seed"),
        (cases, replace(SETTINGS, classes=("SPMS", "RRMS")), "classes"),
    ):
        with pytest.raises(InputError, match=f"was started with other {what}"):
            run_pipelines(with_cases, settings, out)
    assert run_pipelines(cases, SETTINGS, out) == results
    next(iter((out / "cells").iterdir())).write_bytes(b"half")
    with pytest.raises(InputError, match="delete it and run the same command again"):
        run_pipelines(cases, SETTINGS, out)


def test_too_few_patients_of_a_class_are_refused(tmp_path) -> None:
    cases = tiny_cases()
    for labels, found in ((np.zeros(12), "0 of class SPMS"), (np.arange(12) > 6, "5 of class SPMS")):
        with pytest.raises(InputError, match=f"at least 6 patients of each class, found {found}"):
            run_pipelines(replace(cases, labels_N=labels.astype(np.int64)), SETTINGS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        "pipelines", str(folder / "study.yaml"), "--table", str(folder / "table.tsv"),
        "--out", str(folder / "out"), "--classifiers", ",".join(CLASSIFIERS), "--count", "100", "--permutations", "12",
        "--best", "2", "--search", "grid", *more,
    ]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """A study and a table with the tiny cases."""
    cases = tiny_cases()
    lines = ["\t".join(("participant_id", *cases.names, "course"))]
    for patient, values, label in zip(cases.patients, cases.features_NP, cases.labels_N, strict=True):
        lines.append("\t".join((patient, *(repr(float(value)) for value in values), ("RRMS", "SPMS")[label])))
    (tmp_path / "table.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def _alive(group: int) -> bool:
    """Whether a process of the run is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(files, finished) -> None:
    program = "from msfl_server.cli.main import main\nif __name__ == '__main__': main()"
    command = [sys.executable, "-c", program, *arguments(files, "--jobs", "2")]
    running = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_interrupts,
    )
    runs, deadline = files / "out" / "cells", time.monotonic() + 120
    while len(list(runs.glob("*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said.splitlines()[-1:]) == (130, ["interrupted"])
    assert "Traceback" not in said
    while _alive(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(running.pid)
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*.npz")}
    assert 2 <= len(before) < 12 + 15 + 12 + 12

    done = run_main(main, *arguments(files, "--jobs", "1", "--json"))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    document = json.loads(done.stdout)
    expected = json.loads(json.dumps(results_document(finished[1], tiny_cases(), SETTINGS)))
    for one in (document, expected):
        for timed in (*one["classifiers"].values(), *one["tuned"]):
            timed.pop("cpu_seconds")
    assert document == expected
    table = (files / "out" / "pipelines.tsv").read_text().splitlines()
    assert len(table) == 1 + 2 * 27
    page = (files / "out" / "report.html").read_text()
    assert "The best of many pipelines is best partly by luck" in page
    assert "http" not in page

    (files / "table.tsv").write_text((files / "table.tsv").read_text().replace("sub-00", "sub-99"))
    refused = run_main(main, *arguments(files))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "was started with other cases" in refused.stderr
