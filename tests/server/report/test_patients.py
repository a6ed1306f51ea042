"""Coefficients, classes and characteristics of patients on the page, from a study's answers to what a reader sees."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.feature_models import answers_of, play

from msfl_client.classification.evaluation import measure_site
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.feature_models import first_state, predict_proba
from msfl_server.report.classification import classification_section
from msfl_server.report.page import write_report
from msfl_server.report.patients import FEW, patients_table
from msfl_server.results.summary import RoundSummary, SiteSummary, Summary
from msfl_server.results.training_inputs import Characteristics, floor_of_table, training_inputs, without_few
from msfl_server.rounds.checkpoint import RunState
from msfl_server.run.summarise import summarise_run

INPUTS = ("log_lesion_volume", "age", "sex", "edss")


def study_of(**changes: Any) -> StudyConfig:
    content: dict[str, Any] = {
        "outcome": {"endpoint": "edss-worsening"},
        "features": ["log_lesion_volume"],
        "clinical": ["age", "sex", "edss"],
        "model": {"kind": "logistic"},
    }
    return StudyConfig.model_validate({"name": "who", "task": "classification", "classification": content | changes})


def cases_of(seed: int, num_cases: int) -> Dataset:
    rng = np.random.default_rng(seed)
    age, sex, edss = (
        rng.normal(38 + seed, 9, num_cases),
        rng.random(num_cases) < 0.3,
        rng.integers(0, 13, num_cases) / 2,
    )
    rows = np.column_stack([rng.normal(2, 0.8, num_cases), age, sex, edss])
    odds = -1.5 + 0.05 * (age - 38) + 0.4 * (edss - 3)
    labels = (rng.random(num_cases) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    labels[:12] = np.arange(12) % 2
    return Dataset(INPUTS, rows, labels, tuple(f"p{number}" for number in range(num_cases)))


TRAIN = {"Bern": cases_of(1, 90), "Graz": cases_of(2, 60)}
TEST = {"Bern": cases_of(3, 80), "Graz": cases_of(4, 50)}


def summary_of(study: StudyConfig, sites: tuple[str, ...] = ("Bern", "Graz")) -> Summary:
    settings = study.classification
    assert settings is not None
    weights = play(settings, TRAIN)
    answers = answers_of(settings, first_state(settings, 0), TRAIN, 1)
    test = {
        site: measure_site(
            predict_proba(settings, weights, TEST[site].features_NP),
            TEST[site].labels_N,
            TEST[site].patients,
            0.5,
            study,
            Policy(),
        )
        for site in sites
    }
    state = RunState(
        round=1,
        history=(
            RoundSummary(round=1, train_loss=0.5, metrics={}, sites_ok=("Bern", "Graz"), sites_failed=(), seconds=1.0),
        ),
        sites=tuple(SiteSummary(name=name, cases_train=len(one.labels_N), cases_val=0) for name, one in TRAIN.items()),
        training={site: training_inputs(sums) for site, (sums, _) in answers.items()},
        test=test,
        threshold=0.5,
    )
    again = RunState.model_validate_json(state.model_dump_json())
    return summarise_run(study, again, weights)


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    return study_of()


@pytest.fixture(scope="module")
def summary(study: StudyConfig) -> Summary:
    return summary_of(study)


def section_of(summary: Summary, study: StudyConfig) -> dict[str, Any]:
    section = classification_section(summary, study)
    assert section is not None
    return section


def rows_together() -> NDArray[np.float64]:
    return np.concatenate([one.features_NP for one in TRAIN.values()])


@pytest.mark.slow
def test_a_table_1_says_who_trained(study: StudyConfig, summary: Summary) -> None:
    table = section_of(summary, study)["patients"]
    assert table["columns"] == ["All sites", "Class 0", "Class 1", "Bern", "Graz"]
    assert table["num_cases"][0] == 150
    assert table["num_cases"][3:] == [90, 60]
    rows = {row["title"]: row["cells"] for row in table["rows"]}
    values, bern = rows_together(), TRAIN["Bern"]
    assert rows["Age, years, mean (SD)"][0] == f"{values[:, 1].mean():.1f} ({values[:, 1].std(ddof=1):.1f})"
    female = int((bern.features_NP[:, 2] == 0).sum())
    assert rows["Female, n (%)"][3] == f"{female} ({100 * female / 90:.0f}%)"
    positive = np.concatenate([one.features_NP[one.labels_N == 1] for one in TRAIN.values()])
    assert rows["EDSS, mean (SD)"][2] == f"{positive[:, 3].mean():.2f} ({positive[:, 3].std(ddof=1):.2f})"


@pytest.mark.parametrize(
    ("women", "shown"),
    [
        ((20, 12, 9), {"all", "class", "site"}),
        ((20, 3, 9), {"all", "class"}),
        ((20, 5, 24), {"all", "class", "site"}),  # as many as the floor, with it and without
        ((20, 3), set()),  # of two, who knows one would know the other from all
        ((15, 29), {"all", "class", "site"}),  # nobody without it
        ((20, 26), set()),
    ],
)
def test_a_share_of_few_patients_is_not_shown_nor_follows(
    study: StudyConfig, summary: Summary, women: tuple[int, ...], shown: set[str]
) -> None:
    def told(of: Any, cases: int, count: float) -> Characteristics:
        return Characteristics(of=of, name="", cases=cases, means=(2.0, 38.0, 1 - count / cases, 3.0), sds=(1.0,) * 4)

    every = sum(women)
    halves = [told("class", 29 * len(women) // 2, every / 2)] * 2
    columns = (told("all", 29 * len(women), every), *halves, *(told("site", 29, count) for count in women))
    assert summary.classification is not None
    table = patients_table(columns, summary.classification.inputs, study)
    assert table is not None
    cells = next(row["cells"] for row in table["rows"] if row["title"] == "Female, n (%)")
    assert {one.of for one, cell in zip(columns, cells, strict=True) if cell != FEW} == shown
    assert {row["of"] for row in table["csv"] if row["input"] == "sex" and row["mean"] is not None} == shown
    assert all(FEW not in row["cells"] for row in table["rows"] if row["title"] != "Female, n (%)")


def test_the_floor_of_a_share_is_the_studys_and_of_patients(study: StudyConfig) -> None:
    def of_sex(women: float, **changes: Any) -> set[str]:
        means, sds = (2.0, 38.0, 1 - women / 40, 3.0), (1.0,) * 4
        groups: list[Any] = ["all", "class", "class", "site", "site", "site"]
        told = [Characteristics(of=of, name="", cases=40, means=means, sds=sds) for of in groups]
        outcome = {"endpoint": "edss-worsening", "observations": changes.pop("observations", "first")}
        found = without_few(told, INPUTS, *floor_of_table(study_of(outcome=outcome).model_copy(update=changes)))
        assert all((one.means[2] is None) == (one.sds[2] is None) and one.means[1] == 38 for one in found)
        return {one.of for one in found if one.means[2] is not None}

    assert of_sex(7) == of_sex(33) == {"all", "class", "site"}
    assert of_sex(7, min_patients=8) == of_sex(33, min_patients=8) == of_sex(4) == set()
    assert of_sex(12, observations="every") == {"all", "site"}  # 12 visits may be of 2 women
    assert of_sex(40, observations="every") == {"all", "class", "site"}


def test_a_summary_holds_no_mean_that_counts_few(study: StudyConfig) -> None:
    rows = cases_of(5, 60)
    rows.features_NP[:, 2] = rows.features_NP[:, 2] * (rows.labels_N == 0)  # men, none of class 1
    rows.features_NP[np.flatnonzero(rows.labels_N == 1)[:2], 2] = 1.0  # but two
    settings = study.classification
    assert settings is not None
    answers = answers_of(settings, first_state(settings, 0), {"Bern": rows, "Graz": rows, "Linz": rows}, 1)
    told = {site: training_inputs(sums) for site, (sums, _) in answers.items()}
    state = RunState(round=1, training={"Bern": told["Bern"], "Graz": told["Graz"]})
    strict = study.model_copy(update={"min_patients": 7})
    found = summarise_run(strict, state, None).classification
    assert found is not None
    assert {one.of for one in found.characteristics if one.means[2] is None} == {"class"}


def test_the_summary_holds_no_figures_of_a_class_at_a_site(summary: Summary) -> None:
    found = summary.classification
    assert found is not None
    assert [(one.of, one.name) for one in found.characteristics] == [
        ("all", ""), ("class", "0"), ("class", "1"), ("site", "Bern"), ("site", "Graz"),
    ]  # fmt: skip


def test_classes_are_counted_for_each_site_and_split(study: StudyConfig, summary: Summary) -> None:
    table = section_of(summary, study)["counts"]
    assert table["parts"] == ["training", "test"]
    cells = {row["label"]: row["cells"] for row in table["rows"]}
    for site in ("Bern", "Graz"):
        expected = [np.bincount(part[site].labels_N, minlength=2) for part in (TRAIN, TEST)]
        told = [int(cell.split(" ")[0]) for cell in cells[site]]
        assert told == [*expected[0], *expected[1]]
    assert [row["split"] for row in table["csv"][::4]] == ["training", "test"]


def test_coefficients_have_odds_ratios_by_unit_and_standard_deviation(study: StudyConfig, summary: Summary) -> None:
    table = section_of(summary, study)["coefficients"]
    age, sex = (next(row for row in table["rows"] if row["title"] == title) for title in ("Age", "Sex"))
    assert (age["unit"], sex["unit"]) == ("year", "male, against female")
    sd = rows_together()[:, 1].std(ddof=1)
    assert float(age["per_sd"]) == pytest.approx(float(age["per_unit"]) * sd, rel=0.01)
    assert float(age["odds_per_sd"]) == pytest.approx(math.exp(float(age["per_sd"])), abs=0.006)
    assert "l2 penalty draws them towards 0" in table["about"]
    assert not any(row["harmonized"] for row in table["rows"])


def test_a_harmonized_input_is_said_to_be() -> None:
    study = study_of().model_copy(
        update={"harmonization": study_of().harmonization.model_copy(update={"method": "combat"})}
    )
    section = section_of(summary_of(study), study)
    assert [row["harmonized"] for row in section["coefficients"]["rows"]] == [True, False, False, False]
    assert "Harmonized: a unit is one of the harmonized value" in section["coefficients"]["about"]


def test_a_support_vector_machine_has_coefficients_but_no_odds_ratio() -> None:
    study = study_of(model={"kind": "linear-svm"})
    table = section_of(summary_of(study), study)["coefficients"]
    assert not table["has_odds"]
    assert "no odds ratio: the scores of linear-svm" in table["about"]


def test_inputs_scaled_within_a_case_say_nothing_of_patients() -> None:
    inputs = {"features": ["log_lesion_volume", "bpf"], "clinical": ["age", "sex"]}
    study = study_of(**inputs, preparation={"subject_scaling": "standard"})
    assert section_of(summary_of(study), study)["patients"] is None


@pytest.mark.slow
def test_the_page_has_them_and_says_what_is_of_one_site(tmp_path: Path, study: StudyConfig) -> None:
    summary = summary_of(study, ("Bern",))
    page = write_report(tmp_path, summary, study).read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    for expected in (
        "What the model weighs", "Odds ratio, by a standard deviation", "Cases of each class", "Female, n (%)",
        "at 1 of 2 sites", "150 training, 0 validation, 80 test cases", "Download CSV",
    ):  # fmt: skip
        assert expected in text, expected


@pytest.mark.slow
def test_calibration_of_few_patients_is_not_drawn_and_why(study: StudyConfig, summary: Summary) -> None:
    section = section_of(summary, study)
    assert [chart["title"] for chart in section["charts"]][-1] == "Calibration"
    assert "Cox 1958" in section["calibration"]
    few = section_of(summary_of(study, ("Graz",)), study)
    positives = int(TEST["Graz"].labels_N.sum())
    assert positives < 20
    assert [chart["title"] for chart in few["charts"]] == ["ROC", "Precision and recall"]
    assert f"there are {positives} of 50 with it" in few["calibration"]
