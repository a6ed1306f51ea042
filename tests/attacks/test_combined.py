"""Attacks on the seams: what each part holds by itself, two of them together might let through."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import RecordDict

from msfl_client.classification.feature_models.sums import class_sums
from msfl_client.cli.kit_view import beware
from msfl_client.egress.answers import forget, of_same_cases
from msfl_client.egress.gateway import check_request, gateway_of
from msfl_client.egress.ledger_late import Late
from msfl_client.harmonization.combat import Rows
from msfl_client.rounds.site_context import SiteContext
from msfl_client.trainer import Learner
from msfl_common.config.classification import Classification
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import State
from msfl_common.feature_models.preparation import prepare
from msfl_common.messages.harmonization import pack_slopes_task
from msfl_common.messages.records import METRICS, NUM_CASES, RoundTask, pack_task
from msfl_common.trust.kit import SignedKit
from msfl_server.research.audit.rows import recovered
from tests.attacks.feature_sites import Site, play
from tests.attacks.reading_rows import by_imprinting
from tests.attacks.test_floors import ask, code, longer, request
from tests.conftest import BidsSite
from tests.feature_models import make_cases, make_settings

Make = Callable[..., BidsSite]


@pytest.fixture(scope="module")
def cases() -> Dataset:
    return make_cases(0, (55, 40, 40), 6, signal=0.6)["site-0"]


def without_the_first(cases: Dataset) -> Dataset:
    """The same patients a day later: one has left."""
    return replace(cases, features_NP=cases.features_NP[1:], labels_N=cases.labels_N[1:], patients=cases.patients[1:])


# Cases that change while a study runs


def a_last_digit_moved(settings: Classification, site: Site) -> tuple[State, State]:
    """The first state, and one that differs within what another machine's rounding may."""
    first = play(settings, {"site-0": site}, 0)[0]
    return first, first | {"mean": first["mean"] + 1e-13}


def a_step_of_no_length(settings: Classification, site: Site) -> tuple[State, State]:
    """A point of a search, and the next whole step from there, in no direction."""
    state = play(settings, {"site-0": site}, 1)[-1]
    there = state["coefficients"]
    stays = {"coefficients_accepted": there, "coefficients_direction": 0 * there}
    return state, state | stays | {"coefficients_search": np.array([1.0, -1.0, 1.0, 135.0, 1.0])}


@pytest.mark.parametrize("second", [a_last_digit_moved, a_step_of_no_length])
def test_two_states_alike_before_and_after_a_patient_left(
    cases: Dataset, tmp_path: Path, second: Callable[[Classification, Site], tuple[State, State]]
) -> None:
    """They are other states to the register, and their sums differ by that patient's row."""
    settings = make_settings({"kind": "logistic"}, 6)
    site = Site(settings, cases, tmp_path)
    asked, asked_again = second(settings, site)
    site.ask(asked, 1)
    site.ask(asked_again, 2)
    fewer = without_the_first(cases)
    bare = [class_sums(settings, one.features_NP, one.labels_N)["sums"].sum(axis=0) for one in (cases, fewer)]
    np.testing.assert_allclose(bare[0] - bare[1], cases.features_NP[0])
    another = tmp_path / "another"
    asked, asked_again = second(settings, Site(settings, cases, another))
    Site(settings, cases, another).ask(asked, 1)
    with pytest.raises(RefusedError, match="of other cases") as refused:
        Site(settings, fewer, another).ask(asked_again, 2)
    assert refused.value.code is Code.ANSWERED


@pytest.mark.parametrize(("kind", "change"), [("train", "comes"), ("evaluate", "leaves")])
def test_the_same_weights_before_and_after_a_patient_came_or_left(
    make_site: Make, tiny_study: StudyConfig, kind: str, change: str
) -> None:
    """Of the same request, or of the next round's: six patients' mean less five patients' is one patient's Dice."""
    folder = make_site(subjects=[f"sub-{number}" for number in range(8)])
    site = folder.config(policy=Policy(min_patients=1))
    other = "evaluate" if kind == "train" else "train"
    assert code(ask(site, kind, request(tiny_study, 1))) is None
    if change == "comes":
        folder.add("sub-8")
    else:
        shutil.rmtree(folder.root / "sub-0")
    for number in (1, 2):
        assert code(ask(site, kind, request(tiny_study, number))) is Code.ANSWERED
        assert code(ask(site, other, request(tiny_study, number))) is Code.ANSWERED
    again = longer(tiny_study, num_rounds=9)
    assert code(ask(site, kind, request(again, 2), tiny_study)) is Code.ANSWERED


def test_cases_that_change_before_anything_has_left_are_nobodys_business(
    make_site: Make, tiny_study: StudyConfig
) -> None:
    folder = make_site(subjects=["sub-0", "sub-1"])
    site = folder.config(policy=Policy(min_patients=3))
    assert code(ask(site, "train", request(tiny_study))) is Code.TOO_FEW_PATIENTS
    for number in range(2, 8):
        folder.add(f"sub-{number}")
    assert code(ask(site, "train", request(tiny_study))) is None
    for path in folder.root.rglob("*.nii.gz"):
        path.touch()  # a copy of the folder is the same folder
    assert code(ask(site, "train", request(tiny_study, 2))) is None


def test_an_answer_of_cases_that_have_left_is_not_sent_after_a_reset(make_site: Make, tiny_study: StudyConfig) -> None:
    """The same request, which a person has allowed anew: the update that is kept on disk is of other patients."""
    folder = make_site(subjects=[f"sub-{number}" for number in range(12)])
    site = folder.config(policy=Policy(min_patients=1))
    before = ask(site, "train", request(tiny_study)).metric_records[METRICS][NUM_CASES]
    assert ask(site, "train", request(tiny_study)).metric_records[METRICS][NUM_CASES] == before
    for number in range(6):
        shutil.rmtree(folder.root / f"sub-{number}")
    forget(site, "tiny")
    after = ask(site, "train", request(tiny_study)).metric_records[METRICS][NUM_CASES]
    assert cast(int, after) < cast(int, before)


def test_a_state_folder_that_others_may_enter_is_no_fault_of_a_table(make_site: Make, tiny_study: StudyConfig) -> None:
    site = make_site(subjects=["sub-0", "sub-1"]).config(policy=Policy(min_patients=1))
    site.state.mkdir(mode=0o755)
    assert code(ask(site, "train", request(tiny_study))) is Code.INTERNAL
    assert "chmod 700" in (site.state / "site.log").read_text()


def test_a_register_of_cases_that_cannot_be_read_lets_nothing_leave(tmp_path: Path) -> None:
    path = tmp_path / "answers" / "pilot" / "final.cases"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff")
    for _ in range(2):
        with pytest.raises(RefusedError, match="not a register of answers") as refused:
            of_same_cases(tmp_path, "pilot", "final", "0" * 64)
        assert refused.value.code is Code.INTERNAL
        if path.is_file():
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize("second", ["query.moments", "query.residuals"])
def test_sums_of_a_harmonization_before_and_after_a_patient_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    rng = np.random.default_rng(0)
    covariates = np.column_stack([rng.uniform(20, 60, 30), np.arange(30) % 2]).astype(np.float32)
    people = tuple(map(str, range(30)))
    rows = Rows(("a", "b", "c"), rng.normal(10, 1, (30, 3)), covariates, ("one",) * 30, people, people)
    settings = Harmonization(method="combat", features=tuple(FEATURES)[:3])
    task = RoundTask(StudyConfig(name="sums", harmonization=settings), 1)
    policy = Policy(allow=("harmonization_sums",))
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state", policy=policy)

    def answer(kind: str, rows: Rows) -> RecordDict:
        """As a site does that has just been started."""
        monkeypatch.setattr("msfl_client.rounds.handlers.harmonization_rows", lambda *_: (rows, len(rows)))
        content = pack_task(task) if kind == "query.moments" else pack_slopes_task(task, np.zeros((2, 3)))
        return ask(site, kind, content)

    learner = cast(Learner, SimpleNamespace(about=lambda _: None))  # all that it knows of the site is in the rows
    context = SiteContext(site, task.settings, gateway_of(site), (), learner, (), (), lambda *_: None)
    monkeypatch.setattr("msfl_client.rounds.app.open_context", lambda *_: context)
    assert code(answer("query.moments", rows)) is None
    assert code(answer("query.moments", rows)) is None
    assert code(answer(second, rows.take(range(1, 30)))) is Code.ANSWERED
    assert code(answer(second, rows)) is None


# What a person is told before saying yes


@pytest.mark.parametrize(
    ("kind", "is_told"),
    [
        ("gradient-boosting", True),
        ("mlp", True),
        ("random-forest", True),
        ("logistic", True),
        ("linear-svm", True),
        ("lda", False),
    ],
)
def test_a_model_whose_answers_show_rows_is_approved_unawares(kind: str, is_told: bool) -> None:
    study = StudyConfig(name="rows", task="classification", classification=make_settings({"kind": kind}, 6))
    kit = cast(SignedKit, SimpleNamespace(study=study))
    told = " ".join(beware(kit, Policy()))
    assert ("BEWARE" in told and "single patients" in told) == is_told
    assert ("this site takes no part" in told) == is_told
    assert "this site takes no part" not in " ".join(beware(kit, Policy(refuse_models=())))


def test_layers_of_a_perceptron_read_rows_and_nothing_but_the_policy_keeps_them(cases: Dataset, tmp_path: Path) -> None:
    """With a study's default settings, among 55 patients; so that it stays refused as long as this works."""
    settings = make_settings({"kind": "mlp"}, 6)
    site = Site(settings, cases, tmp_path)
    start = play(settings, {"site-0": site}, 1)[-1]
    lifted = start | {"mean": start["mean"] - 8 * start["spread"] / np.diag(start["projection"])}
    rows, rounds = prepare(settings, lifted, cases.features_NP), iter(range(1, 21))
    decay = (1 - 1e-2 * 1e-3) ** (5 * 2)  # five passes of two batches
    found = by_imprinting(lambda state: site.ask(state, next(rounds)), start, 20, decay, seed=0)
    assert recovered(found, rows) > 40


@pytest.mark.parametrize("kind", ["gradient-boosting", "linear-svm", "logistic", "mlp", "random-forest"])
def test_models_that_show_rows_are_refused_unless_the_site_allows_them(kind: str) -> None:
    settings = make_settings({"kind": kind}, 6)
    study = StudyConfig(name="rows", task="classification", classification=settings)
    with pytest.raises(RefusedError, match=rf"`policy.refuse_models` names; to take part, take {kind} out of it"):
        check_request(Policy(tasks=("classification",)), study, 1)
    check_request(Policy(tasks=("classification",), refuse_models=()), study, 1)


def test_the_reserve_for_a_full_disk_opens_a_new_state_folder_to_nobody(tmp_path: Path) -> None:
    Late(tmp_path / "state" / "ledger.jsonl").reserve()
    assert (tmp_path / "state" / "ledger.late").exists()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
