"""Which runs a comparison is made of: equal steps, equal splits, and what is refused before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msfl_client.classification.outcome_data import read_outcomes
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_server.research.arms.checks import check_plan
from msfl_server.research.arms.measured import read_finished
from msfl_server.research.arms.plan import (
    ArmsPlan,
    Attack,
    by_itself,
    claim_plan,
    pooled,
    read_plan,
    site_in,
    why_not_pooled,
)
from msfl_server.research.arms.results import headline_metrics, results_of
from msfl_server.research.arms.scores import RunScores, SiteScores, write_scores
from msfl_server.research.arms.verdict import verdict
from msfl_server.research.arms.work import share_caches
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort

OUTCOME = {
    "name": "pilot",
    "task": "classification",
    "min_patients": 2,
    "classification": {
        "outcome": {"endpoint": "activity"},
        "features": ["bpf"],
        "clinical": ["age"],
        "model": {"kind": "lda"},
    },
}


def sites(base: Path, *names: str) -> tuple[SiteConfig, ...]:
    return tuple(SiteConfig(name=name, data=(base / name,), state=base / "state" / name) for name in names)


def plan_of(base: Path, study: dict[str, Any] | None = None, **changes: Any) -> ArmsPlan:
    content = {"strategies": ("fedavg", "fedavgm"), "num_seeds": 2, **changes}
    return ArmsPlan(
        study=StudyConfig.model_validate(study or {"name": "pilot", "seed": 7}),
        sites=sites(base, "a", "b", "c"),
        **content,
    )


def test_each_arm_takes_the_same_number_of_steps_with_each_seed(tmp_path: Path) -> None:
    runs = plan_of(tmp_path, leave_one_out=True).runs.values()
    for seed in (7, 8):
        steps: dict[str, int] = {}
        for run in runs:
            if run.study.seed == seed and run.group in ("local", "centralised", "federated"):
                steps[run.arm] = steps.get(run.arm, 0) + run.num_steps
        assert steps == dict.fromkeys(("local", "centralised", "fedavg", "fedavgm"), 10 * 30 * 3)
    assert len({run.name for run in runs}) == len(runs) == 2 * (1 + 3 + 2 + 3)
    (central,) = (run for run in runs if run.group == "centralised" and run.study.seed == 7)
    assert central.study.training.steps_per_round == 90
    without = [run for run in runs if run.group == "without"]
    assert {(run.site, run.arm) for run in without} == {("a", "fedavg"), ("b", "fedavg"), ("c", "fedavg")}
    assert all(run.site not in [site.name for site in run.members] for run in without)


def test_an_attack_at_other_sites_is_another_run(tmp_path: Path) -> None:
    attacked = [("a",), ("b",), ("a", "b"), ("b", "a"), tuple(f"site-{n}" for n in range(60))]
    plans = [plan_of(tmp_path, num_seeds=1, attack=Attack(kind="scale", sites=sites)) for sites in attacked]
    names = [next(run.name for run in plan.runs.values() if run.group == "attacked") for plan in plans]
    assert names[2] == names[3] == "attacked/scale/a+b/fedavg/seed-7"
    assert len(set(names)) == 4
    assert max(len(part) for part in names[4].split("/")) <= 100


def test_rounds_count_from_as_many_sites_on_as_a_strategy_needs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, strategies=("fedavg", "median"))
    assert {arm: study.rounds.quorum for arm, study in plan.federated.items()} == {"fedavg": 2, "median": 3}
    check_plan(plan)


def test_a_site_by_itself_is_under_no_rule_of_what_leaves() -> None:
    study = StudyConfig.model_validate(
        {"name": "pilot", "min_patients": 9, "strategy": {"kind": "fedavgm"}, "rounds": {"max_share": 0.4, "quorum": 3}}
    )
    alone = by_itself(study, 3, 1)
    assert (alone.min_patients, alone.rounds.quorum, alone.rounds.max_share, alone.strategy) == (1, 1, 1.0, None)
    assert StudyConfig.model_validate_json(alone.model_dump_json()) == alone


def test_who_tests_a_segmentation_is_the_same_under_no_floor() -> None:
    study = StudyConfig(name="pilot", min_patients=9, validation={"test_fraction": 0.25})
    alone = by_itself(study, 3, 1)
    assert (alone.min_patients, alone.min_test_patients, study.min_test_patients) == (1, 9, 9)


@pytest.mark.parametrize("seed", [0, 5])
def test_in_one_place_patients_are_split_as_they_are_apart(tmp_path: Path, seed: int) -> None:
    make_records(tmp_path / "cohort", num_sites=2, cases_per_site=25)
    study = by_itself(StudyConfig.model_validate(OUTCOME), seed, 1)
    apart = sites_of_cohort(tmp_path / "cohort", tmp_path, study)
    whole = read_outcomes(pooled(apart), study, lambda *_: None).splits
    tested: set[tuple[str, str]] = set()
    for site in apart:
        found = read_outcomes(site, study, lambda *_: None).splits
        tested |= {(str(site.data[one.dataset]), one.subject) for one in found.test}
    folders = [folder for site in apart for folder in site.data]
    parts = [{(str(folders[one.dataset]), one.subject) for one in part} for part in whole.each]
    assert parts[2] == tested
    assert len(tested) > 8
    assert not (parts[0] | parts[1]) & tested


def test_sites_whose_people_cannot_be_told_apart_are_not_pooled(tmp_path: Path) -> None:
    one, two, _ = sites(tmp_path, "a", "b", "c")
    assert why_not_pooled((one, two)) is None
    several = two.model_copy(update={"data": (tmp_path, tmp_path / "x")})
    assert "b has people in several folders" in (why_not_pooled((one, several)) or "")
    assert "`masks`" in (why_not_pooled((one, two.model_copy(update={"masks": "drawn"}))) or "")


def test_a_run_has_states_of_its_own_and_shares_what_sites_have_found(tmp_path: Path) -> None:
    site, *_ = sites(tmp_path, "a")
    here = site_in(tmp_path / "runs" / "x", site)
    (here.state / "cache" / "found").write_text("")
    assert (site.state / "cache" / "found").exists()
    assert here.state == tmp_path / "runs" / "x" / "sites" / "a"
    assert site_in(tmp_path / "runs" / "x", site) == here


def test_what_sites_have_prepared_for_the_network_is_taken_up_in_one_place(tmp_path: Path) -> None:
    members = sites(tmp_path, "a", "b")
    whole = pooled(members)
    for number, site in enumerate((*members, whole)):
        (site.state / "cache").mkdir(parents=True)
        (site.state / "cache" / f"{number}.safetensors").write_text(str(number))
        (site.state / "cache" / "checks.json").write_text(site.name)
    for _ in range(2):
        share_caches(members, whole)
    found = {path.name: path.read_text() for path in (whole.state / "cache").iterdir()}
    assert found == {"0.safetensors": "0", "1.safetensors": "1", "2.safetensors": "2", "checks.json": "all-sites"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"strategies": ("fedfoo",)}, "--strategies: .*fedfoo"),
    ({"attack": Attack(kind="nan", sites=("x",))}, "--attacked: .*x"),
    ({"attack": Attack(kind="nan", sites=("a", "b", "c"))}, "leave an honest one"),
    ({"strategies": ("krum",)}, "--strategies: krum needs 5 sites or more, and there are 3"),
    ({"study": OUTCOME}, "--strategies fedavg: strategy: fedavg is for networks"),
    ({"study": OUTCOME, "strategies": (), "attack": Attack(kind="label-flip", sites=("a",))}, "lesion masks"),
    ({"study": OUTCOME, "strategies": (), "attack": Attack(kind="stale", sites=("a",))}, "network's weights"),
    ({"study": {"name": "x", "rounds": {"quorum": 3}}, "leave_one_out": True}, "without a, .*quorum is 3"),
    ({"study": {"name": "x", "rounds": {"quorum": 4}}}, "quorum is 4"),
    (
        {"study": {"name": "x", "secure_aggregation": {"method": "masks"}}, "attack": Attack(kind="nan", sites=("a",))},
        "under masks",
    ),
]


@pytest.mark.parametrize(("changes", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        check_plan(plan_of(tmp_path, **changes))


def test_a_folder_takes_more_seeds_and_strategies_but_no_other_study(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim_plan(out, plan_of(tmp_path))
    more = plan_of(tmp_path, num_seeds=3, leave_one_out=True)
    claim_plan(out, more)
    assert read_plan(out) == more
    with pytest.raises(InputError, match="belongs to another study"):
        claim_plan(out, plan_of(tmp_path, {"name": "pilot", "seed": 8}))
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        claim_plan(tmp_path / "else", plan_of(tmp_path))


def test_figures_of_other_patients_than_in_other_arms_are_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, num_seeds=1)
    for run in plan.runs.values():
        folder = tmp_path / "out" / "runs" / run.name
        folder.mkdir(parents=True)
        patients = ("x", "y") if run.name != "federated/fedavgm/seed-7" else ("x", "z")
        scores = SiteScores(patients, {"dsc": np.array([0.5, np.nan])})
        write_scores(
            folder, RunScores(3, {"a": scores}, {"b": "its mask is gone"} if run.group == "centralised" else {})
        )
    found = read_finished(plan, tmp_path / "out")
    assert found.unmeasured == {
        "federated/fedavgm/seed-7 at a": "other patients than in other arms, so no differences from them",
        "centralised/seed-7 at b": "its mask is gone",
    }
    (read,) = found.scores("federated", ("fedavg", None, None), "a").values()
    assert read.patients == ("x", "y")
    assert np.array_equal(read.metrics["dsc"], [0.5, np.nan], equal_nan=True)


def test_a_site_without_held_out_patients_is_in_no_mean_and_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, num_seeds=1, strategies=("fedavg",), attack=Attack(kind="scale", sites=("a",)))
    for run in plan.runs.values():
        folder = tmp_path / "out" / "runs" / run.name
        folder.mkdir(parents=True)
        figures = dict.fromkeys(headline_metrics(plan), np.array([0.5]))
        scores = {site: SiteScores(("x",), figures) for site in ("a", "b")}
        write_scores(folder, RunScores(3, {**scores, "c": SiteScores(())}))
    found = results_of(read_finished(plan, tmp_path / "out"))
    assert found.measured_sites == ("a", "b")
    mean = found.value("fedavg", None)
    assert mean is not None
    assert mean.value == 0.5
    assert found.attacks[0].attacked == 0.5
    assert list(found.unmeasured) == ["c"]
    assert "no held-out patients" in found.unmeasured["c"]
    assert "in the mean over 2 sites" in verdict(found)[0]
