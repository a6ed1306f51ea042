"""A coordinator that wants one patient: figures of too few, and answers to more requests than a study needs."""

from __future__ import annotations

import dataclasses
import io
import math
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from msfl_client.classification.evaluation import measure_site
from msfl_client.cli.main import main
from msfl_client.egress.answers import FOLDER, forget, may_answer
from msfl_client.egress.gateway import Outgoing, gateway_of, release
from msfl_client.egress.ledger import Line, read
from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation import trainer
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.harmonization import Residuals
from msfl_common.messages.records import (
    ModelUpdate,
    NodeFacts,
    RoundTask,
    ValidationMetrics,
    describe,
    pack_task,
    payload_sha256,
    unpack_facts,
    unpack_metrics,
    unpack_refusal,
)
from msfl_common.metrics.classification import class_metrics
from msfl_common.metrics.intervals import mean_estimate, mean_interval
from msfl_common.metrics.segmentation import METRICS
from msfl_common.models.network import build_network, get_weights
from msfl_server.research.simulation.grid import InProcessGrid
from tests.client.classification.test_evaluation import STUDY as OUTCOMES
from tests.commands import run_main
from tests.conftest import BidsSite

Make = Callable[..., BidsSite]
OPEN = Policy(min_patients=1)


def ask(site: SiteConfig, kind: str, content: RecordDict, agreed: StudyConfig | None = None) -> RecordDict:
    """What a deployed site answers, as one that has just been started does."""
    open_context.cache_clear()
    grid = InProcessGrid(build_app(lambda _: site, cache_answers=True, agreed=agreed), 1)
    (reply,) = grid.send_and_receive([Message(content, 1, kind)])
    return reply.content


def code(content: RecordDict) -> Code | None:
    refusal = unpack_refusal(content)
    return refusal and refusal.code


def request(study: StudyConfig, number: int = 1, moved_by: float = 0.0) -> RecordDict:
    """A round of a study, with its first weights or others near by."""
    weights = get_weights(build_network(study))
    return pack_task(RoundTask(study, number), {name: value + np.float32(moved_by) for name, value in weights.items()})


def lines(site: SiteConfig) -> list[Line]:
    return list(read(site.state / "ledger.jsonl"))


# What a figure rests on


def test_a_model_of_one_patient(make_site: Make, tiny_study: StudyConfig) -> None:
    site = make_site(subjects=["sub-1", "sub-2"]).config(policy=Policy(min_patients=2))
    assert code(ask(site, "train", request(tiny_study))) is Code.TOO_FEW_PATIENTS
    assert [line.kind for line in lines(site)] == ["refusal"]


def test_the_studys_floor_counts_where_it_is_the_larger(make_site: Make, tiny_study: StudyConfig) -> None:
    site = make_site(subjects=["sub-1", "sub-2"]).config(policy=OPEN)
    assert code(ask(site, "train", request(tiny_study.model_copy(update={"min_patients": 2})))) is Code.TOO_FEW_PATIENTS


def test_visits_of_one_patient_are_one_patient(make_site: Make, tiny_study: StudyConfig) -> None:
    folder = make_site()
    for subject in ("sub-1", "sub-2"):
        for context in range(5):
            folder.add(subject, f"ses-{context}")
    site = folder.config(policy=Policy(min_patients=2))
    assert code(ask(site, "train", request(tiny_study))) is Code.TOO_FEW_PATIENTS
    facts = unpack_facts(ask(site, "query", pack_task(RoundTask(tiny_study, 1))))
    assert facts.cases_at_least == 0  # five visits, of one patient


def test_a_round_that_draws_one_of_many_patients(make_site: Make, tiny_study: StudyConfig) -> None:
    training = tiny_study.training.model_copy(update={"steps_per_round": 1, "batch_size": 1})
    site = make_site(subjects=[f"sub-{number}" for number in range(6)]).config(policy=Policy(min_patients=2))
    assert (
        code(ask(site, "train", request(tiny_study.model_copy(update={"training": training})))) is Code.TOO_FEW_PATIENTS
    )


def test_a_metric_of_one_of_five_patients(
    make_site: Make, tiny_study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that outline nothing but in one patient: PPV, FPR and distance would be that patient's."""
    values = np.random.default_rng(0).uniform(0.2, 0.8, (5, len(METRICS)))
    rows = [dict(zip(METRICS, map(float, row), strict=True)) for row in values]
    for row in rows[1:]:
        row |= dict.fromkeys(("ppv", "lesion_fpr", "hd95_mm"), math.nan)
    monkeypatch.setattr(trainer, "validate", lambda *_: rows)
    validation = tiny_study.validation.model_copy(update={"fraction": 0.8})
    study = tiny_study.model_copy(update={"validation": validation})
    site = make_site(subjects=[f"sub-{number}" for number in range(6)]).config(policy=Policy(min_patients=5))
    content = ask(site, "evaluate", request(study))
    assert set(unpack_metrics(content, frozenset(METRICS)).estimates) == set(METRICS) - {"ppv", "lesion_fpr", "hd95_mm"}
    ends = [value for name, value in content.metric_records["metrics"].items() if "ci95" in name]
    assert not np.isin(np.round(ends, 9), np.round(values, 9)).any()
    assert [(line.num_cases, line.min_patients) for line in lines(site)] == [(5, 5)]


@pytest.mark.parametrize("num_patients", [3, 4, 5])
def test_the_end_of_an_interval_that_is_one_patients_value(num_patients: int) -> None:
    values = [0.1, 0.55, 0.6, 0.8, 0.9][:num_patients]
    names = [f"p{number}" for number in range(num_patients)]

    one = mean_estimate(values, names, (0.0, 1.0))
    of_all = mean_interval(one.mean, one.standard_error, num_patients - 1, (0.0, 1.0))
    assert (one.ci95_low, one.ci95_high) == pytest.approx(of_all)  # of figures that are of all patients
    assert not np.isclose([[one.ci95_low], [one.ci95_high]], values, atol=1e-6).any()


@pytest.mark.parametrize("rare", [0, 1])
def test_a_class_of_one_patient(rare: int) -> None:
    rng = np.random.default_rng(0)
    score, labels = rng.uniform(size=30), np.full(30, 1 - rare)
    labels[7] = rare
    patients = [f"p{number}" for number in range(30)]
    metrics = measure_site(np.stack([1 - score, score], axis=1), labels, patients, 0.5, OUTCOMES, Policy())
    assert not set(metrics.estimates) & set(class_metrics())
    assert "brier" in metrics.estimates
    assert not metrics.score_bins.any()  # type: ignore[union-attr]
    assert not metrics.confusion.any()  # type: ignore[union-attr]
    assert metrics.min_patients == 30


@pytest.mark.parametrize(
    "outgoing",
    [
        ModelUpdate({"w": np.ones(2, np.float32)}, num_cases=9, train_loss=0.5, seconds=1.0),
        ValidationMetrics({}, num_cases=9, seconds=1.0, min_patients=4),
        Residuals(9, np.zeros(2), np.ones(2)),
        NodeFacts("here", "1", 5),
    ],
    ids=["update", "metrics", "sums", "facts"],
)
def test_nothing_of_too_few_passes_the_gate_whatever_computed_it(
    site: SiteConfig, tiny_study: StudyConfig, outgoing: Outgoing
) -> None:
    policy = site.policy.model_copy(update={"min_patients": 5, "allow": (*site.policy.allow, "harmonization_sums")})
    gateway = gateway_of(site.model_copy(update={"policy": policy}))
    with pytest.raises(RefusedError, match="4 patients behind a figure, at least 5 needed"):
        release(gateway, outgoing, tiny_study, 1, num_patients=4)
    assert not gateway.ledger.exists()
    release(gateway, outgoing, tiny_study, 1, num_patients=5)


def test_the_ledger_says_of_how_few(make_site: Make, tiny_study: StudyConfig) -> None:
    folder = make_site(subjects=[f"sub-{number}" for number in range(5)])
    for context in range(3):
        folder.add("sub-5", f"ses-{context}")
    site = folder.config(policy=Policy(min_patients=2))
    for kind in ("query", "train", "evaluate"):
        assert code(ask(site, kind, request(tiny_study))) is None
    told, trained, measured = lines(site)
    assert (told.min_patients, trained.min_patients, measured.min_patients) == (4, 3, 2)  # four patches
    assert measured.num_cases + trained.num_cases == 8


# How often a study is answered


@pytest.fixture
def site(make_site: Make) -> SiteConfig:
    return make_site(subjects=[f"sub-{number}" for number in range(6)]).config(policy=OPEN)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_many_requests_that_are_all_called_round_1(site: SiteConfig, tiny_study: StudyConfig, kind: str) -> None:
    """Weights near by, one after the other: a bisection. The first alone is answered, as often as it comes."""
    app = build_app(lambda _: site, cache_answers=True, agreed=tiny_study)
    grid = InProcessGrid(app, 1)
    contents = [request(tiny_study, 1, number * 1e-6) for number in (0, *range(50), 0)]
    replies = [reply.content for reply in grid.send_and_receive([Message(content, 1, kind) for content in contents])]
    answered = [number for number, reply in enumerate(replies) if unpack_refusal(reply) is None]
    assert answered == [0, 1, 51]
    assert {code(reply) for number, reply in enumerate(replies) if number not in answered} == {Code.ANSWERED}
    if kind == "train":
        assert describe(replies[0]).sha256 == describe(replies[51]).sha256


def test_a_site_that_was_restarted_has_forgotten_nothing(site: SiteConfig, tiny_study: StudyConfig) -> None:
    assert code(ask(site, "evaluate", request(tiny_study))) is None
    assert code(ask(site, "evaluate", request(tiny_study, 1, 1e-3))) is Code.ANSWERED
    path = site.state / FOLDER / "tiny" / "final-validation.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parents[1])} == {0o700}


def test_rounds_that_go_back(site: SiteConfig, tiny_study: StudyConfig) -> None:
    """A site that missed round 1 is not asked for it once it has answered round 2."""
    assert code(ask(site, "evaluate", request(tiny_study, 2))) is None
    assert code(ask(site, "evaluate", request(tiny_study, 1))) is Code.ANSWERED
    assert code(ask(site, "evaluate", request(tiny_study, 2))) is None
    assert code(ask(site, "evaluate", request(tiny_study, 3))) is None


@pytest.mark.parametrize("number", [0, 4, 1000])
def test_rounds_beyond_the_study(site: SiteConfig, tiny_study: StudyConfig, number: int) -> None:
    assert code(ask(site, "train", request(tiny_study, number))) is Code.BAD_STUDY


def test_a_request_that_does_not_fit_takes_no_round_from_a_sound_one(site: SiteConfig, tiny_study: StudyConfig) -> None:
    wrong = request(tiny_study)
    del wrong.array_records["arrays"][next(iter(wrong.array_records["arrays"]))]
    assert code(ask(site, "train", wrong)) is Code.BAD_MODEL
    assert code(ask(site, "train", request(tiny_study))) is None


def longer(study: StudyConfig, **settings: float) -> StudyConfig:
    return study.model_copy(update={"rounds": study.rounds.model_copy(update=settings)})


def test_settings_of_rounds_that_make_a_request_look_new(site: SiteConfig, tiny_study: StudyConfig) -> None:
    """Deadline, patience, quorum: the same request, the same answer. Number of rounds: another rate, so another."""
    first = ask(site, "train", request(tiny_study), agreed=tiny_study)
    for settings in ({"deadline_s": 7.0}, {"patience_s": 1.0}, {"quorum": 1}):
        again = ask(site, "train", request(longer(tiny_study, **settings)), agreed=tiny_study)
        assert describe(again).sha256 == describe(first).sha256
    assert code(ask(site, "train", request(longer(tiny_study, num_rounds=9)), tiny_study)) is Code.ANSWERED
    assert code(ask(site, "train", request(longer(tiny_study, num_rounds=9), 2), tiny_study)) is None


def test_a_study_that_grows_beyond_the_policy(site: SiteConfig, tiny_study: StudyConfig) -> None:
    strict = site.model_copy(update={"policy": Policy(min_patients=1, max_rounds=3)})
    assert code(ask(strict, "evaluate", request(tiny_study, 3), tiny_study)) is None
    assert code(ask(strict, "evaluate", request(longer(tiny_study, num_rounds=4), 4), tiny_study)) is Code.POLICY


@pytest.mark.parametrize("purpose", ["test", "moments", "residuals", "reference", "segmentation"])
def test_what_happens_once_in_a_study(tmp_path: Path, tiny_study: StudyConfig, purpose: str) -> None:
    """A second test, threshold, slope, reference or model of lesions, in this round or another."""
    first = RoundTask(tiny_study, 1)
    may_answer(tmp_path, purpose, first, request(tiny_study), max_rounds=9)()
    for number in (1, 2):  # handed again to a site that comes back
        may_answer(tmp_path, purpose, RoundTask(longer(tiny_study, num_rounds=7), number), request(tiny_study), 9)()
    others = [(task, request(tiny_study, moved_by=1e-6)) for task in (first, RoundTask(tiny_study, 2))]
    others.append((dataclasses.replace(first, threshold=0.51), request(tiny_study)))
    if purpose != "test":  # a stage hands out a model of its own
        others.append((dataclasses.replace(first, stage="segmentation"), request(tiny_study)))
    others.append((RoundTask(tiny_study.model_copy(update={"seed": 1}), 1), request(tiny_study)))
    for task, content in others:
        with pytest.raises(RefusedError) as refused:
            may_answer(tmp_path, purpose, task, content, max_rounds=9)
        assert refused.value.code is Code.ANSWERED


def test_a_validation_that_is_called_a_test(site: SiteConfig, tiny_study: StudyConfig) -> None:
    """A segmentation has no test: it would be a second validation in the same round."""
    assert code(ask(site, "evaluate", request(tiny_study))) is None
    again = request(tiny_study, moved_by=1e-3)
    again.config_records["task"]["split"], again.config_records["task"]["threshold"] = "test", 0.3
    assert code(ask(site, "evaluate", again)) is Code.ANSWERED


def test_answers_are_counted_whatever_a_request_says(tmp_path: Path, tiny_study: StudyConfig) -> None:
    for number in (1, 5):
        may_answer(tmp_path, "train", RoundTask(tiny_study, number), request(tiny_study), max_rounds=2)()
    with pytest.raises(RefusedError, match="2 rounds of train answered, at most 2"):
        may_answer(tmp_path, "train", RoundTask(tiny_study, 6), request(tiny_study), max_rounds=2)
    may_answer(tmp_path, "validation", RoundTask(tiny_study, 6), request(tiny_study), max_rounds=2)


def test_two_states_under_one_digest() -> None:
    """Bytes moved from one array behind another: the same stream, other weights. The ledger's digest is of it alone."""

    def stored(value: float) -> bytes:
        stream = io.BytesIO()
        np.save(stream, np.full(3, value))
        return stream.getvalue()

    def content(first: bytes, second: bytes) -> RecordDict:
        arrays = {
            "a": Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=first),
            "b": Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=second),
        }
        return RecordDict({"arrays": ArrayRecord(arrays)})

    between = b"arrays/b="
    one = content(stored(1) + between + stored(2), stored(3))
    other = content(stored(1), stored(2) + between + stored(3))
    assert one.array_records["arrays"]["b"].numpy()[0] != other.array_records["arrays"]["b"].numpy()[0]
    assert describe(one).sha256 == describe(other).sha256
    assert payload_sha256(one) != payload_sha256(other)


@pytest.mark.parametrize("damage", ["a file in its place", "half a file", "rounds that are no numbers"])
def test_a_register_that_cannot_be_kept(site: SiteConfig, tiny_study: StudyConfig, damage: str) -> None:
    if damage == "a file in its place":
        site.state.mkdir(mode=0o700)
        (site.state / FOLDER).touch()
    else:
        assert code(ask(site, "evaluate", request(tiny_study))) is None
        text = '{"1": "ab' if damage == "half a file" else '{"one": "ab"}'
        (site.state / FOLDER / "tiny" / "final-validation.json").write_text(text)
    before = len(lines(site))
    reply = ask(site, "evaluate", request(tiny_study, 2))
    assert (set(reply), code(reply)) == ({"refusal"}, Code.INTERNAL)
    assert [line.kind for line in lines(site)[before:]] == ["refusal"]


def test_a_full_disk(site: SiteConfig, tiny_study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msfl_client.egress.answers.write_bytes", full)
    assert code(ask(site, "evaluate", request(tiny_study))) is Code.DISK_FULL


def test_only_a_person_lets_a_study_be_answered_anew(
    site: SiteConfig, tiny_study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.state.parent / "site.yaml"
    path.write_text(f"name: here\ndata: {site.data[0]}\nstate: {site.state}\n")
    assert run_main(main, "reset-answers", path, "tiny", "--yes").returncode == 2  # nothing to forget
    assert code(ask(site, "evaluate", request(tiny_study))) is None
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = run_main(main, "reset-answers", path, "tiny")
    assert (asked.returncode, asked.stdout.strip()) == (1, "")
    assert "on record to study tiny: 1 answer. Answer it anew?" in asked.stderr
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    nobody = run_main(main, "reset-answers", path, "tiny")
    assert nobody.returncode == 2
    assert nobody.stderr.endswith(
        "\nanswering a study anew needs a person's yes, and there is no terminal; use --yes\n"
    )
    assert code(ask(site, "evaluate", request(tiny_study, 1, 1e-3))) is Code.ANSWERED
    assert run_main(main, "reset-answers", path, "tiny", "--yes").returncode == 0
    assert [line.kind for line in lines(site)][-1] == "answers_reset"
    assert code(ask(site, "evaluate", request(tiny_study, 1, 1e-3))) is None


@pytest.mark.parametrize("study", ["..", "../..", "", ".", "/etc", "no-such"])
def test_a_name_that_leads_out_of_the_register(site: SiteConfig, tiny_study: StudyConfig, study: str) -> None:
    may_answer(site.state, "train", RoundTask(tiny_study, 1), request(tiny_study), max_rounds=9)()
    with pytest.raises(InputError, match="no answer to study"):
        forget(site, study)
    assert (site.state / FOLDER / "tiny").is_dir()
