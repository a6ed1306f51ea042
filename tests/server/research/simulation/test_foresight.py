"""What a simulation says before its first round, and what it does not begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.faults.forecast import faults_of
from tests.clinical_site import Tables
from tests.commands import run_main

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_server.cli.main import main
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.foresight import expect_answers, foresee_run, say_forecasts
from msfl_server.results.summary import read_summary


def setup_of(tmp_path: Path, counts: Sequence[Sequence[int]], **changes: Any) -> RunSetup:
    """Sites of so many patients of each of two classes."""
    sites = []
    for number, of_classes in enumerate(counts):
        labels = [f"c{label}" for label, count in enumerate(of_classes) for _ in range(count)]
        tables = Tables(tmp_path / f"site-{number}")
        lines = [(f"sub-{n:03d}", round(0.5 * (n * 7 % 19), 1), 20 + n, label) for n, label in enumerate(labels)]
        tables.participants(("participant_id", "edss", "age", "course"), *lines)
        policy = Policy(tasks=("classification",), refuse_models=())
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [9001, 9002, 9005, 9007])
def test_random_studies_withhold_what_their_sites_forecast(tmp_path: Path, seed: int) -> None:
    assert not list(faults_of(seed, tmp_path / "study"))


@pytest.mark.slow
def test_the_progression_example_trains_at_every_site_of_sixty_patients(tmp_path: Path) -> None:
    """As shipped, at the default floor: sites with three and four patients who worsen train, and figures are told."""
    make_records(tmp_path / "patients", num_sites=3, cases_per_site=60, seed=0)
    example = Path(__file__).parents[4] / "site_configs" / "progression.example.yaml"
    done = run_main(main, "simulate", example, "--cohort", tmp_path / "patients", "--output", tmp_path / "run")
    assert done.returncode == 0
    text = " ".join((done.stdout + done.stderr).split())
    assert "4 training patients of class 1; expected none, or at least 5" in text
    assert text.index("No AUROC, AUPRC") < text.index("round 1")
    assert "Brier score" in text
    assert "Withheld by every site: AUROC" in text
    summary = read_summary(tmp_path / "run")
    assert all(set(one.sites_ok) == {"site-a", "site-b", "site-c"} for one in summary.history)
    assert summary.classification is not None
    assert summary.classification.split == "test"
    assert set(summary.metrics["brier"].per_site) == {"site-a", "site-b", "site-c"}
