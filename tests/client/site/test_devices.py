"""What of its machine a site lends: devices, hours, device time a day, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from pydantic import ValidationError

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import SiteContext, open_context, train_site, validate_site
from msfl_client.segmentation.loop import is_out_of_memory
from msfl_client.site.devices import add_device_hours, check_hours, device_hours
from msfl_client.training.site_strategy import Start
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.messages.records import RoundTask, pack_task, unpack_facts, unpack_refusal
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.weights import Weights
from msfl_common.system.devices import pick_device, pick_devices
from msfl_server.research.simulation.grid import InProcessGrid

CPU = torch.device("cpu")
NIGHT = datetime(2026, 3, 2, 23, 0)
DAY = datetime(2026, 3, 2, 12, 0)


def config(**settings: Any) -> SiteConfig:
    return SiteConfig(name="here", data=(Path("bids"),), state=Path("state"), **settings)


@pytest.fixture
def open_here(
    make_site: Callable[..., Any], tiny_study: StudyConfig
) -> Callable[..., tuple[SiteContext, RoundTask, Weights]]:
    """Open a context of six real cases; returns it with a round's task and weights."""

    def opened(**settings: Any) -> tuple[SiteContext, RoundTask, Weights]:
        site = make_site(subjects=[f"sub-{number}" for number in range(6)])
        settings = {"policy": Policy(min_patients=1), "device": "cpu", **settings}
        context = open_context(site.config(**settings), tiny_study, lambda *_: None)
        return context, RoundTask(tiny_study, 1), get_weights(build_network(tiny_study))

    return opened


def clock_that_jumps(first: datetime, then: datetime, after: int) -> Callable[[], datetime]:
    """Shows `first` as often as `after` says, `then` ever after."""
    looks = 0

    def clock() -> datetime:
        nonlocal looks
        looks += 1
        return first if looks <= after else then

    return clock


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:3", ["cuda:0", "cuda:1"], ["cpu", "cpu"]])
def test_a_site_names_one_device_or_several(device: str | list[str]) -> None:
    shown = tuple(device) if isinstance(device, list) else device
    assert config(device=device).device == shown


@pytest.mark.parametrize("device", ["gpu", "cuda:", [], ["cuda:0", "cuda:0"], ["cuda:0", "cpu"], ["cuda", "cuda:1"]])
def test_other_devices_are_refused_with_what_may_stand_there(device: str | list[str]) -> None:
    with pytest.raises(ValidationError, match=r"expected auto, cpu, mps, cuda, cuda:N or a list of different GPUs"):
        config(device=device)


def test_devices_that_are_not_there_are_refused() -> None:
    assert pick_devices("cpu") == pick_devices(("cpu",)) == (CPU,)
    assert pick_devices(["cpu", "cpu"]) == (CPU, CPU)
    assert pick_device(["cpu", "cpu"]) == CPU
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(RefusedError, match=f"NO_DEVICE: .*{missing}: "):
        pick_devices([missing])


@pytest.mark.parametrize("hours", ["19-07", "24:00-07:00", "19:60-20:00", "07:00-07:00", "19:00 - 07:00"])
def test_hours_are_clock_times(hours: str) -> None:
    with pytest.raises(ValidationError):
        config(hours=hours)


@pytest.mark.parametrize(
    ("hours", "open_at", "shut_at"),
    [
        ("19:00-07:00", ["19:00", "23:59", "00:00", "06:59"], ["07:00", "12:00", "18:59"]),
        ("08:30-17:00", ["08:30", "16:59"], ["08:29", "17:00", "00:00"]),
        (["01:00-02:00", "22:00-00:00"], ["01:30", "22:00", "23:59"], ["00:00", "02:00", "21:59"]),
        ([], ["00:00", "12:00"], []),
    ],
)
def test_a_window_holds_its_start_and_not_its_end(hours: Any, open_at: list[str], shut_at: list[str]) -> None:
    windows = config(hours=hours).hours
    for clock in open_at:
        check_hours(windows, datetime.fromisoformat(f"2026-03-02T{clock}:59"))
    for clock in shut_at:
        with pytest.raises(RefusedError, match=f"OUTSIDE_HOURS.*it is {clock}"):
            check_hours(windows, datetime.fromisoformat(f"2026-03-02T{clock}:59"))


def test_outside_of_its_hours_a_site_says_who_it_is_and_nothing_more(
    make_site: Callable[..., Any], tiny_study: StudyConfig
) -> None:
    now = datetime.now()
    passed = f"{now - timedelta(hours=3):%H:%M}-{now - timedelta(hours=2):%H:%M}"
    folder = make_site(subjects=[f"sub-{number}" for number in range(6)])
    site = folder.config(policy=Policy(min_patients=1), hours=passed)
    grid = InProcessGrid(build_app(lambda _: site), 1)

    def answer(kind: str) -> RecordDict:
        content = pack_task(RoundTask(tiny_study, 1), get_weights(build_network(tiny_study)))
        (reply,) = grid.send_and_receive([Message(content, 1, kind)])
        return reply.content

    assert unpack_facts(answer("query")).site == "here"
    for kind in ("train", "evaluate"):
        assert unpack_refusal(answer(kind)).code is Code.OUTSIDE_HOURS  # type: ignore[union-attr]
    assert not (site.state / "device_hours.json").exists()


@pytest.mark.parametrize(("work", "what"), [(train_site, "training"), (validate_site, "validating")])
def test_work_that_runs_into_the_end_of_the_window_stops_at_the_next_step(
    open_here: Callable[..., Any], work: Callable[..., Any], what: str
) -> None:
    context, task, weights = open_here(hours="19:00-07:00")
    seen: list[tuple[str, int, int]] = []
    context = replace(context, on_progress=lambda _, *told: seen.append(told[:3]))
    with pytest.raises(RefusedError) as refused:
        work(context, task, weights, clock_that_jumps(NIGHT, DAY, after=1))
    assert refused.value.code is Code.OUTSIDE_HOURS
    assert seen == [(what, 1, 2)]
    work(context, task, weights, clock_that_jumps(NIGHT, DAY, after=2))  # the last step is not thrown away
    assert seen[1:] == [(what, 1, 2), (what, 2, 2)]
    assert device_hours(context.site.state / "device_hours.json", NIGHT.date()) > 0  # what was stopped counts too


def test_device_time_is_summed_by_the_day(tmp_path: Path) -> None:
    record = tmp_path / "state" / "device_hours.json"
    assert device_hours(record, date(2026, 3, 2)) == 0
    add_device_hours(record, DAY, 1800, num_devices=1)
    add_device_hours(record, NIGHT, 3 * 3600, num_devices=2)
    assert device_hours(record, date(2026, 3, 2)) == pytest.approx(0.5 + 2 * 1)
    assert device_hours(record, date(2026, 3, 3)) == pytest.approx(2 * 2)
    record.write_text("[1]")
    with pytest.raises(InputError, match="remove it to start anew"):
        device_hours(record, date(2026, 3, 2))


def test_a_days_device_time_is_the_sites_to_limit(open_here: Callable[..., Any]) -> None:
    context, task, weights = open_here(policy=Policy(min_patients=1, max_device_hours_per_day=1.0))
    record = context.site.state / "device_hours.json"
    add_device_hours(record, DAY, 3599.9, num_devices=1)
    train_site(context, task, weights, lambda: DAY)
    add_device_hours(record, DAY, 0.1, num_devices=1)
    for work in (train_site, validate_site):
        with pytest.raises(RefusedError, match=r"POLICY.*1\.00 device hours today, at most 1"):
            work(context, task, weights, lambda: DAY)
    assert validate_site(context, task, weights, lambda: DAY + timedelta(days=1)).num_cases == 2


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
]


def room_for(num_patches: int, error: Exception) -> Callable[..., None]:
    """A hook that fails as a device does on which larger batches do not fit."""

    def before(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > num_patches:
            raise error

    return before


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_round_that_does_not_fit_is_trained_again_in_halves(open_here: Callable[..., Any], error: Exception) -> None:
    context, task, weights = open_here()
    whole = train_site(context, task, weights)
    set_weights(context.learner.network, weights)
    context.learner.train_round(context.learner.network, Start(1, weights, weights, {}, {}), lambda *_: None, 2)
    halves = get_weights(context.learner.network)
    handle = context.learner.network.register_forward_pre_hook(room_for(1, error))
    update = train_site(context, task, weights)
    handle.remove()
    assert all(np.array_equal(update.weights[name], halves[name]) for name in halves)
    assert any(not np.array_equal(update.weights[name], whole.weights[name]) for name in halves)


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_round_that_does_not_fit_in_halves_either_is_refused(open_here: Callable[..., Any], error: Exception) -> None:
    context, task, weights = open_here()
    handle = context.learner.network.register_forward_pre_hook(room_for(0, error))
    for work in (train_site, validate_site):
        with pytest.raises(RefusedError) as refused:
            work(context, task, weights)
        assert refused.value.code is Code.OUT_OF_MEMORY
    handle.remove()
    assert train_site(context, task, weights).num_cases == 4


def test_other_errors_are_not_taken_for_a_lack_of_memory(open_here: Callable[..., Any]) -> None:
    context, task, weights = open_here()
    handle = context.learner.network.register_forward_pre_hook(room_for(1, RuntimeError("shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="shapes"):
        train_site(context, task, weights)
    handle.remove()


def test_pytorchs_own_words_for_no_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 52, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
