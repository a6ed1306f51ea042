"""Attacks that need several rounds, folds or studies of the same patients, against what a deployed site counts.

Each is carried out with the bounds off, too, where it must work.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msfl_client.cli.forecast_view import play_under_bar
from msfl_client.cli.main import main
from msfl_client.disclosure.budget import FILE, FOLDER
from msfl_client.egress.ledger_sums import BUDGET_RESET
from msfl_client.rounds.forecast_words import budget_sentence, forecast_lines
from msfl_client.site.account_files import write_account_file
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from tests.attacks.deployed_site import UNBOUNDED, Deployed, people, study_of, write_people
from tests.attacks.solving import read_by_metrics, read_by_states
from tests.commands import run_main

NOT_HELD = {**UNBOUNDED, "min_patients": 1}


def site(tmp_path: Path, number: int = 200, study: StudyConfig | None = None, **policy: Any) -> Deployed:
    folder = tmp_path / "bids"
    if not folder.exists():
        write_people(folder, people(3, number))
    return Deployed(folder, study or study_of(), policy)


def refused(asked: Any) -> str:
    """Why, at the site; the code is the budget's."""
    with pytest.raises(RefusedError) as error:
        asked()
    assert error.value.code is Code.BUDGET_SPENT
    return error.value.detail


def spent(deployed: Deployed) -> list[tuple[str, int, int | None]]:
    from msfl_client.egress.budget_record import budget_lines

    return [(line.what, line.spent, line.most) for line in budget_lines(deployed.site)]


def client(*arguments: str, code: int = 0) -> str:
    done = run_main(main, *arguments, columns=400)
    assert done.returncode == code, done.stderr
    return done.stdout


def site_file(deployed: Deployed) -> Path:
    path = deployed.folder.parent / "site.yaml"
    path.write_text("name: here\ndata: bids\nstate: state\npolicy: {tasks: [classification], refuse_models: []}\n")
    return path


@pytest.mark.slow
def test_an_honest_search_ends_with_the_same_weights_within_the_budget_that_was_foreseen(tmp_path: Path) -> None:
    held = site(tmp_path / "held")
    made, _ = play_under_bar(held.site, held.study)
    assert made is not None
    assert made.budget is not None
    assert "0 numbers are given out, and this study takes about 143 more; less than 150" in budget_sentence(made.budget)
    states, answers = held.play()
    bare, _ = site(tmp_path / "bare", **UNBOUNDED).play()
    assert len(states) == len(bare) > 5
    assert all(
        one[name].tobytes() == other[name].tobytes() for one, other in zip(states, bare, strict=True) for name in one
    )
    # The first sums with their loss, then loss, gradient and curvature with the mean loss; the first of these is known.
    assert spent(held) == [("sums", 15 + 16 * (len(answers) - 1) - 1, 150)]


@pytest.mark.slow
def test_a_study_that_does_not_fit_is_refused_before_anything_leaves(tmp_path: Path) -> None:
    small = site(tmp_path, 180)
    assert "90 cases of 3 inputs are 270 values" in refused(lambda: small.play(1))
    kinds = [json.loads(line)["kind"] for line in (small.site.state / "ledger.jsonl").read_text().splitlines()]
    assert kinds == ["refusal"]
    made, _ = play_under_bar(small.site, small.study)
    assert made is not None
    foreseen = made.refused("training")
    assert foreseen is not None
    assert foreseen.code is Code.BUDGET_SPENT
    assert any("90 cases of 3 inputs" in line for line in forecast_lines([made]))
    assert len(site(tmp_path, study=study_of(kind="lda")).play()[1]) == 1


@pytest.mark.slow
def test_reruns_other_names_and_settings_share_one_budget(tmp_path: Path) -> None:
    one = site(tmp_path)
    _, answers = one.play()
    before = spent(one)
    client("reset-answers", str(site_file(one)), "first", "--yes")
    again = site(tmp_path)
    for mine, other in zip(again.play()[1], answers, strict=True):
        assert all(mine[name].tobytes() == other[name].tobytes() for name in mine)
    assert spent(again) == before, "the same answers cost nothing, though the register of answers forgot them"
    assert len(site(tmp_path, study=study_of("renamed")).play()[1]) == len(answers)
    assert spent(again) == before, "nor do they in a study of another name"
    for other in (study_of("second", model={"inverse_strength": 0.01}), study_of("other-seed", seed=5)):
        assert "more were needed" in refused(lambda other=other: site(tmp_path, study=other).play())
    made, _ = play_under_bar(again.site, study_of("other-seed", seed=5))
    assert made is not None
    assert made.refused("training") is not None


@pytest.mark.slow
def test_a_budget_is_shown_and_forgotten_by_a_person_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = site(tmp_path, study=study_of(kind="lda"))
    states, _ = one.play()
    one.measure(states[-1])
    path, page = site_file(one), tmp_path / "page.html"
    said = "numbers released about 100 patients (sums of models, first): 21 of 150, for 300 values"
    status = client("status", str(path), code=1)
    assert said in status
    assert ("(metrics, first): 1 of 20" in status, "measurements of 50 patients" in status) == (True, True)
    assert said in client("ledger", str(path))
    client("ledger", str(path), "--report", str(page))
    assert said in page.read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody to ask
    client("reset-budget", str(path), code=2)
    assert spent(one)
    client("reset-budget", str(path), "--yes")
    assert spent(one) == []
    kinds = [json.loads(line)["kind"] for line in (one.site.state / "ledger.jsonl").read_text().splitlines()]
    assert kinds[-1] == BUDGET_RESET
    client("ledger", str(path), "--verify")
    client("ledger", str(path), "--report", str(page))
    assert ("budget reset" in page.read_text(), BUDGET_RESET in page.read_text()) == (True, False)


@pytest.mark.parametrize("damage", ["{", '[{"study": "first"}]'])
def test_a_budget_that_cannot_be_read_or_written_lets_nothing_leave(tmp_path: Path, damage: str) -> None:
    one = site(tmp_path, study=study_of(kind="lda"))
    one.site.state.mkdir(mode=0o700)
    (one.site.state / FOLDER).write_text("in the way")
    with pytest.raises(RefusedError):
        one.play()
    (one.site.state / FOLDER).unlink()
    one = site(tmp_path, study=study_of(kind="lda"))
    one.play()
    write_account_file(one.site.state, one.site.state / FOLDER / FILE, damage.encode())
    with pytest.raises(RefusedError) as error:
        site(tmp_path, study=study_of("second", "naive-bayes")).play()
    assert "msfl-client reset-budget" in error.value.detail


@pytest.mark.slow
def test_folds_are_answered_while_there_is_room(tmp_path: Path) -> None:
    for number in range(1, 6):
        fold = study_of(f"fold-{number}", "lda", classification={"fold": {"number": number, "of": 5}})
        deployed = site(tmp_path, study=fold)
        states, _ = deployed.play()
        deployed.measure(states[-1], "test")
        deployed.measure(states[-1])


def less_one(cases: Dataset) -> Dataset:
    """Without one patient."""
    return Dataset(cases.names, cases.features_NP[1:], cases.labels_N[1:], cases.patients[1:])


def one_corrected(cases: Dataset) -> Dataset:
    """One patient is a year older."""
    values = cases.features_NP.copy()
    values[0, 0] += 1
    return Dataset(cases.names, values, cases.labels_N, cases.patients)


def one_worse(cases: Dataset) -> Dataset:
    """One patient's outcome is another."""
    labels = cases.labels_N.copy()
    labels[0] = 1 - labels[0]
    return Dataset(cases.names, cases.features_NP, labels, cases.patients)


@pytest.mark.parametrize("changed", [less_one, one_corrected, one_worse])
def test_a_patient_who_changed_is_not_the_difference_of_two_studies(tmp_path: Path, changed: Any) -> None:
    policies: Mapping[str, Mapping[str, Any]] = {"bare": NOT_HELD, "held": {}}
    cases = one_who_trains()
    for name, policy in policies.items():
        floor = {"min_patients": 1} if name == "bare" else {}
        sums = []
        for study, given in (("first", cases), ("second", changed(cases))):
            write_people(tmp_path / name / "bids", given)
            deployed = Deployed(tmp_path / name / "bids", study_of(study, "lda", **floor), policy)
            if study == "second" and name == "held":
                assert "nearly the same patients" in refused(deployed.play)
                return
            sums.append(deployed.play()[1][0])
        change = np.abs(sums[1]["sums"] - sums[0]["sums"]).max(axis=0)
        row = cases.features_NP[0]
        assert np.allclose(change, [1, 0, 0] if changed is one_corrected else row, atol=1e-9), "the bare sums tell"


def one_who_trains() -> Dataset:
    """Patients of whom the first trains, and whose splits do not depend on any of the changes."""
    cases, order = people(4, 60), np.roll(np.arange(60), -4)
    patients = tuple(cases.patients[at] for at in order)
    return Dataset(cases.names, cases.features_NP[order], cases.labels_N[order], patients)


@pytest.mark.slow
def test_states_that_are_chosen_are_too_few_to_be_solved(tmp_path: Path) -> None:
    bare = read_by_states(site(tmp_path / "bare", **UNBOUNDED), 15, seed=1)
    held = read_by_states(site(tmp_path / "held"), 15, seed=1)
    assert bare.asked >= 12  # some are refused for what they would tell of few; which ones, rounding has a say in
    assert held.asked == 8
    assert bare.right > 30  # of 100
    assert held.right <= 18  # as many as who names the commonest rows gets right by chance, in 95 of 100 cohorts


@pytest.mark.slow
def test_metrics_of_chosen_models_are_too_few_to_be_solved(tmp_path: Path) -> None:
    bare = site(tmp_path / "bare", 100, **UNBOUNDED)
    start = bare.play(1)[0][-1]
    read = read_by_metrics(bare, start, 60, seed=1)
    assert read.right == read.patients
    held = read_by_metrics(site(tmp_path / "held", 100), start, 60, seed=1)
    assert held.asked == 20
    assert held.right <= 2  # of 25; what a guess finds
