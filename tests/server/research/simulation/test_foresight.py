"""What a simulation says before its first round, and what it does not begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.faults.forecast import faults_of
from tests.benchmarks.simulated_rounds import train
from tests.clinical_site import Tables

from msfl_common.config.message_kinds import KINDS
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.dry_run import dry_run
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.foresight import expect_answers, foresee_run, say_forecasts
from msfl_server.rounds.checkpoint import read_state

MASKED = {"secure_aggregation": {"method": "masks"}}


def setup_of(tmp_path: Path, counts: Sequence[Sequence[int]], **changes: Any) -> RunSetup:
    """Sites of so many patients of each of two classes."""
    sites = []
    for number, of_classes in enumerate(counts):
        labels = [f"c{label}" for label, count in enumerate(of_classes) for _ in range(count)]
        tables = Tables(tmp_path / f"site-{number}")
        lines = [(f"sub-{n:03d}", round(0.5 * (n * 7 % 19), 1), 20 + n, label) for n, label in enumerate(labels)]
        tables.participants(("participant_id", "edss", "age", "course"), *lines)
        policy = Policy(tasks=("classification",), refuse_models=(), allow=tuple(KINDS))
        state = tmp_path / "states" / str(number)
        sites.append(SiteConfig(name=f"site-{number}", data=(tables.root,), state=state, policy=policy))
    outcome = {"column": "course", "classes": ["c0", "c1"]}
    content = {
        "name": "play",
        "task": "classification",
        "classification": {"outcome": outcome, "clinical": ["age", "edss"], "model": {"kind": "lda"}},
    }
    return RunSetup(study=StudyConfig.model_validate(content | changes), sites=tuple(sites))


def said(setup: RunSetup) -> list[str]:
    lines: list[str] = []
    forecasts = foresee_run(setup, lambda *_: None)
    say_forecasts(setup.study, forecasts, lines.append)
    expect_answers(setup.study, forecasts)
    return lines


def test_a_study_that_every_site_can_answer_is_told_of_what_depends_alone(tmp_path: Path) -> None:
    assert [line.split()[0] for line in said(setup_of(tmp_path, [(40, 40), (40, 40)]))] == ["Whether"]


def test_a_declared_column_that_no_site_has_is_named(tmp_path: Path) -> None:
    outcome = {"column": "course", "classes": ["c0", "c1"]}
    declared = [{"name": "sdmt", "kind": "number", "unit": "points", "range": [0, 110]}]
    settings = {"outcome": outcome, "clinical": ["age", "sdmt"], "declared": declared, "model": {"kind": "lda"}}
    setup = setup_of(tmp_path, [(20, 20), (20, 20)], classification=settings)
    forecasts = foresee_run(setup, lambda *_: None)
    assert [one.lacking for one in forecasts] == [("sdmt",), ("sdmt",)]
    lines: list[str] = []
    say_forecasts(setup.study, forecasts, lines.append)
    assert lines[0].startswith("site-0: no table has the column sdmt, which the study declares")
    assert not [line for line in lines if "a lower floor" in line]
    with pytest.raises(
        InputError, match=r"classification\.declared: sdmt: no table of any site has such a column; add"
    ):
        expect_answers(setup.study, forecasts)
    found = dry_run(setup.study, setup.sites, lambda *_: None)
    assert "sdmt" in str(found.fault)
    table = setup.sites[0].data[0] / "participants.tsv"
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([f"{first}\tsdmt", *(f"{line}\t50" for line in rest)]) + "\n")
    assert [one.lacking for one in foresee_run(setup, lambda *_: None)] == [(), ("sdmt",)]


def test_what_real_sites_would_not_have_the_budget_for_is_said_and_simulated(tmp_path: Path) -> None:
    logistic = {"model": {"kind": "logistic"}, "outcome": {"column": "course", "classes": ["c0", "c1"]}}
    study = {"classification": {**logistic, "clinical": ["age", "edss"]}}
    lines = [one for one in said(setup_of(tmp_path, [(40, 40), (40, 40)], **study)) if "BUDGET_SPENT" in one]
    assert len(lines) == 1
    assert lines[0].startswith("Real sites with these patients would not train")
    assert lines[0].count("more were needed") == 2


def test_what_too_few_sites_tell_under_masks_is_said(tmp_path: Path) -> None:
    counts = [(40, 40), (40, 40), (40, 12)]
    lines = [one for one in said(setup_of(tmp_path, counts, **MASKED)) if one.startswith("Under masks no AUROC")]
    assert [step for one in lines for step in ("validation", "test") if f" {step} patients is shown: fewer" in one] == [
        "validation",
        "test",
    ]
    assert not any("masks" in one for one in said(setup_of(tmp_path / "plain", counts)))


def test_no_figure_of_any_site_is_said_once(tmp_path: Path) -> None:
    lines = said(setup_of(tmp_path, [(16, 0), (0, 16)]))
    assert "So no site will tell any figure of the final model." in lines


@pytest.mark.parametrize(
    ("counts", "changes", "expected"),
    [
        ([(40, 40), (4, 4)], {}, "1 of 2 sites will train in round 1, and the quorum is 2: site-1: no case is left"),
        ([(40, 8), (40, 6)], {}, "class c1: no training case at any site"),
    ],
)
def test_a_study_whose_first_round_cannot_count_does_not_begin(
    tmp_path: Path, counts: list[tuple[int, int]], changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        said(setup_of(tmp_path, counts, **changes))


def test_a_harmonization_whose_covariates_do_not_vary_does_not_begin(tmp_path: Path) -> None:
    """Site by site nothing is wrong; the sums of all cannot be solved."""
    harmonized = {"harmonization": {"method": "combat", "features": ["bpf"]}}
    setup = setup_of(tmp_path, [(20, 20), (20, 20), (20, 20)], **harmonized)
    for site in setup.sites:
        (root,) = site.data
        tables, subjects = Tables(root), [f"sub-{n:03d}" for n in range(40)]
        rows = [(one, "F", 20 + n, 0.5 * (n * 7 % 19), f"c{n // 20}") for n, one in enumerate(subjects)]
        tables.participants(("participant_id", "sex", "age", "edss", "course"), *rows)
        features = [(one, "n/a", "s", 0.7 + 0.001 * (n % 11)) for n, one in enumerate(subjects)]
        tables.write("features/features.tsv", ("participant_id", "session_id", "scanner", "bpf"), *features)
    with pytest.raises(InputError, match="sex has one value at each scanner, or follows from the other covariates"):
        said(setup)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [9002, 9007])
def test_random_studies_withhold_what_their_sites_forecast(tmp_path: Path, seed: int) -> None:
    assert not list(faults_of(seed, tmp_path / "study"))


@pytest.mark.slow
def test_the_progression_example_trains_at_every_site_of_sixty_patients(tmp_path: Path) -> None:
    """As shipped, at the default floor: sites with three and four patients who worsen train, and figures are told."""
    make_records(tmp_path / "patients", num_sites=3, cases_per_site=60, seed=0)
    study = load_study(Path(__file__).parents[4] / "site_configs" / "progression.example.yaml")
    sites = sites_of_cohort(tmp_path / "patients", tmp_path / "run", study)
    lines = said(RunSetup(study=study, sites=sites))
    assert study.min_patients == 5
    assert [line.split(",")[0] for line in lines[:2]] == 2 * ["No AUROC"]
    train(study, sites, tmp_path / "run")  # every site must answer every round
    state = read_state(tmp_path / "run")
    assert set(state.test) == {"site-a", "site-b", "site-c"}
    assert all(set(told.estimates) <= {"brier", "ece", "accuracy"} for told in state.test.values())
    assert all("brier" in told.estimates for told in state.test.values())
