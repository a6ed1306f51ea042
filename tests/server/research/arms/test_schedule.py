"""How much of a comparison is done, what is left of the time, and how many runs go on at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.research.arms import schedule
from msfl_server.research.arms.plan import ArmsPlan
from msfl_server.research.arms.scores import SCORES_FILE


def plan_of(base: Path, num_seeds: int = 1) -> ArmsPlan:
    sites = tuple(SiteConfig(name=name, data=(base / name,), state=base / "state" / name) for name in ("a", "b"))
    study = StudyConfig.model_validate({"name": "pilot", "rounds": {"num_rounds": 4}})
    return ArmsPlan(study=study, sites=sites, strategies=("fedavg",), num_seeds=num_seeds)


def test_a_run_is_done_as_far_as_its_checkpoints_go_and_wholly_once_measured(tmp_path: Path) -> None:
    run = plan_of(tmp_path).runs["local/a/seed-0"]
    assert schedule.done_part(run, tmp_path) == 0
    (tmp_path / "checkpoints" / "round_0003").mkdir(parents=True)
    assert schedule.done_part(run, tmp_path) == pytest.approx(0.95 * 3 / 4)
    (tmp_path / SCORES_FILE).write_text("{}")
    assert schedule.done_part(run, tmp_path) == 1


def test_what_is_left_of_the_time_goes_by_the_steps_of_this_command_alone() -> None:
    assert schedule.time_left(0, 100, 9) == ""
    assert schedule.time_left(50, 100, 60) == "; about 2 min left"
    assert schedule.time_left(50, 5000, 60) == "; about 1.7 h left"
    assert schedule.time_left(100, 0, 60) == ""


@pytest.mark.parametrize(("free_gb", "cores", "jobs"), [(1.0, 8, 1), (7.0, 8, 2), (100.0, 3, 3), (1000.0, 64, 4)])
def test_as_many_runs_at_once_as_cores_and_memory_and_runs_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: float, cores: int, jobs: int
) -> None:
    monkeypatch.setattr(schedule, "free_memory_gb", lambda: free_gb)
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: cores)
    assert schedule.default_jobs(plan_of(tmp_path)) == jobs
