"""`msfl-server audit` as a researcher types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_main

from msfl_server.cli.main import main as server
from msfl_server.research.simulated_cohort import make_records

STUDY = """\
name: pilot
task: classification
classification:
  outcome: {endpoint: edss-worsening, horizon_years: 1}
  clinical: [age, sex, edss, disease_duration]
  model: {kind: logistic}
"""
NOISE = """\
differential_privacy:
  noise_multiplier: 3
  bounds: {age: [18, 80], sex: [0, 1], edss: [0, 10], disease_duration: [0, 40]}
"""
SEGMENTS_FIRST = "segmentation: {num_rounds: 2}\nclassification:\n  features: [bpf]\n"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "cohort"
    make_records(folder, num_sites=2, cases_per_site=60)
    return folder


def audited(folder: Path, cohort: Path, study: str = STUDY, models: int = 12) -> Any:
    (folder / "study.yaml").write_text(study)
    arguments = (folder / "study.yaml", "--cohort", cohort, "--output", folder / "out", "--models", models, "--json")
    return run_main(server, "audit", *arguments)


def lines(document: dict[str, Any], attack: str) -> list[dict[str, Any]]:
    return [one for one in document["findings"] if one["attack"] == attack]


@pytest.mark.slow
def test_rows_are_read_from_bare_sums_and_none_from_a_site(cohort: Path, tmp_path: Path) -> None:
    done = audited(tmp_path, cohort)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out" / "audit.json").read_text())
    bare, masked, bounded = lines(document, "Bisection")
    assert [one["verdict"] for one in (bare, masked, bounded)] == ["leaks", "leaks", "bounded"]
    assert bare["value"] == masked["value"] == 1
    assert (bounded["value"], bounded["number"], bounded["note"]) == (
        0, bare["number"], "the honest first round is answered"
    )  # fmt: skip
    assert "stays hidden" in masked["note"]
    solved = lines(document, "Least squares")
    assert solved[0]["verdict"] == "leaks"
    assert solved[2]["verdict"] == "bounded"
    assert "who are refused: " in solved[2]["note"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("inconclusive") == sum(one["verdict"] == "inconclusive" for one in document["findings"])
    assert audited(tmp_path, cohort).stdout == done.stdout  # and the folder is taken again


@pytest.mark.slow
def test_noise_is_held_against_the_same_model_without(cohort: Path, tmp_path: Path) -> None:
    done = audited(tmp_path, cohort, STUDY.replace("logistic", "lda") + NOISE, models=48)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["epsilon"] == pytest.approx(1.3, abs=0.2)
    assert [line.split(":")[0] for line in document["not_audited"]] == ["Bisection", "Least squares"]
    found = {(one["figure"], one["defence"]): one for one in document["findings"]}
    assert len(found) == 12
    without, noisy = (found["AUC, canaries", defence] for defence in ("", "differential privacy"))
    assert (without["verdict"], noisy["verdict"]) == ("leaks", "bounded")
    assert noisy["value"] < without["value"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("\nclassification:\n", f"\n{SEGMENTS_FIRST}"), "a study that trains a model of lesions before it"),
        (("{kind: logistic}", "{kind: random-forest}"), "random-forest is not audited yet"),
        (
            ("task: classification", "task: classification\nharmonization: {method: combat}"),
            "--set harmonization.method",
        ),
    ],
)
def test_what_is_not_audited_yet_is_refused_by_name(
    cohort: Path, tmp_path: Path, change: tuple[str, str], line: str
) -> None:
    done = audited(tmp_path, cohort, STUDY.replace(*change))
    assert (done.returncode, done.stdout, (tmp_path / "out").exists()) == (2, "", False)
    assert line in done.stderr.splitlines()[-1]


def test_only_simulated_patients_are_attacked(cohort: Path, tmp_path: Path) -> None:
    done = audited(tmp_path, cohort / "site-a")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "attacks are for simulated patients" in done.stderr


def test_too_few_patients_are_refused(tmp_path: Path) -> None:
    make_records(tmp_path / "few", num_sites=1, cases_per_site=14)
    done = audited(tmp_path, tmp_path / "few")
    assert done.returncode == 2
    assert "audit a larger cohort" in done.stderr.splitlines()[-1]
