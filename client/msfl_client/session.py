"""What a site builds once per process and uses in every round: checked cases, loaders and the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import torch

from msfl_client.bids import Case, split_by_patient
from msfl_client.checks import check_site
from msfl_client.devices import (
    Clock,
    add_device_hours,
    cap_memory,
    check_hours,
    device_hours,
    free_memory,
    pick_devices,
)
from msfl_client.distributed import train_on_devices
from msfl_client.distributed_rank import Job
from msfl_client.egress import Door, check_device_hours, check_floor
from msfl_client.ledger import LEDGER_FILE
from msfl_client.patches import PatchDataset, PatchLoader
from msfl_client.preprocess import PreparedCase, cached_path, prepare_all
from msfl_client.training import OnStep, is_out_of_memory, train_round, validate
from msfl_common.config import SiteConfig, StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages import ModelUpdate, RoundTask, ValidationMetrics
from msfl_common.network import build_network, get_weights, set_weights
from msfl_common.seeds import derive_seed
from msfl_common.statistics import bootstrap_mean
from msfl_common.weights import Weights

OnProgress = Callable[[str, str, int, int, str], None]  # site, what it does, done, of how many, note
TrainRound = Callable[[torch.nn.Module, int, OnStep, int], float]  # network, round, on_step, micro-batches


@dataclass(frozen=True)
class SiteSession:
    """A site, ready for the rounds of one study."""

    site: SiteConfig
    study: StudyConfig
    door: Door
    devices: tuple[torch.device, ...]
    network: torch.nn.Module
    train_round: TrainRound
    training: tuple[Case, ...]
    cases: tuple[Case, ...]
    validation_cases: tuple[PreparedCase, ...]
    validation_patients: tuple[str, ...]
    on_progress: OnProgress

    @property
    def num_train_cases(self) -> int:
        """Cases that the site trains on."""
        return len(self.training)


@lru_cache(maxsize=64)
def open_session(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> SiteSession:
    """Check, split and preprocess the site's cases and build what the rounds need.

    Raises:
        CohortError: the folders hold nothing usable.
        RefusedError: no case is left for training.
    """
    num_workers = os.cpu_count() or 1

    def on_checked(done: int, total: int) -> None:
        on_progress(site.name, "checking", done, total, "")

    checked = check_site(site, study.inputs, on_checked, num_workers)
    done = 0

    def on_prepared() -> None:
        nonlocal done
        done += 1
        on_progress(site.name, "preparing", done, len(checked.cases), "")

    prepared = prepare_all(checked.cases, study.inputs, site.state / "cache", num_workers, on_prepared)
    usable = {case.key: ready for case, ready in zip(checked.cases, prepared, strict=True) if ready is not None}
    num_bad = len(checked.found) - len(usable)
    if num_bad:
        left_out = f"{num_bad} of {len(checked.found)} cases left out; `msfl-client check` says why"
        on_progress(site.name, "checked", len(checked.found), len(checked.found), left_out)
    train, validation = split_by_patient(
        [case for case in checked.cases if case.key in usable], study.validation.fraction, study.seed
    )
    if not train:
        raise RefusedError(Code.NO_CASES)
    devices = _devices_of(site, study, on_progress)
    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down a hundredfold and mean nothing here
    return SiteSession(
        site=site,
        study=study,
        door=Door(site.policy, site.state / LEDGER_FILE),
        devices=devices,
        network=build_network(study),
        train_round=_training_on(devices, site, study, [(case, usable[case.key]) for case in train]),
        training=tuple(train),
        cases=(*train, *validation),
        validation_cases=tuple(usable[case.key] for case in validation),
        validation_patients=tuple("/".join(map(str, case.patient)) for case in validation),
        on_progress=on_progress,
    )


def _devices_of(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> tuple[torch.device, ...]:
    """The site's devices, at most one for each patch of a batch; says so when a setting does not apply."""
    there = pick_devices(site.device)
    devices = there[: study.training.batch_size]
    if len(devices) < len(there):
        note = f"a batch of {study.training.batch_size} leaves {len(there) - len(devices)} devices idle"
        on_progress(site.name, "checked", 0, 0, note)
    if site.gpu_memory_fraction < 1 and devices[0].type != "cuda":
        on_progress(site.name, "checked", 0, 0, f"gpu_memory_fraction has no effect on {devices[0].type}")
    cap_memory(devices[0], site.gpu_memory_fraction)
    return devices


def _training_on(
    devices: tuple[torch.device, ...], site: SiteConfig, study: StudyConfig, cases: Sequence[tuple[Case, PreparedCase]]
) -> TrainRound:
    """How this site trains a round: in this process, or in one for each of several devices."""
    seed = derive_seed(study.seed, "site", site.name)
    if len(devices) == 1:
        loader = PatchLoader(PatchDataset([prepared for _, prepared in cases], study.training, seed), devices[0])

        def train_here(network: torch.nn.Module, number: int, on_step: OnStep, micro_batches: int) -> float:
            return train_round(network, loader, study, number, devices[0], on_step, micro_batches)

        return train_here
    paths = tuple(cached_path(case, study.inputs, site.state / "cache") for case, _ in cases)
    names = tuple(map(str, devices))

    def train_there(network: torch.nn.Module, number: int, on_step: OnStep, micro_batches: int) -> float:
        job = Job(
            study=study,
            round_number=number,
            cases=paths,
            seed=seed,
            devices=names,
            memory_fraction=site.gpu_memory_fraction,
            micro_batches=micro_batches,
        )
        return train_on_devices(network, job, on_step)

    return train_there


def train_site(session: SiteSession, task: RoundTask, weights: Weights, clock: Clock = datetime.now) -> ModelUpdate:
    """One round of training from the shared weights, in the site's hours and within its limits.

    Raises:
        RefusedError: not now, no longer today, out of memory, or the training failed.
    """
    start = time.monotonic()

    def on_step(step: int, num_steps: int, loss: float) -> None:
        session.on_progress(session.site.name, "training", step, num_steps, f"loss {loss:.3f}")
        if step < num_steps:
            check_hours(session.site.hours, clock())

    with _machine_in_use(session.site, len(session.devices), clock):
        loss = _train_sparing_memory(session, task, weights, on_step)
    update = get_weights(session.network)
    return ModelUpdate(update, session.num_train_cases, loss, time.monotonic() - start)


def _train_sparing_memory(session: SiteSession, task: RoundTask, weights: Weights, on_step: OnStep) -> float:
    """Train the round; when memory runs out, once more from the start, with each batch in two parts."""
    set_weights(session.network, weights)
    try:
        return session.train_round(session.network, task.round, on_step, 1)
    except Exception as error:
        if not is_out_of_memory(error) or task.study.training.batch_size <= len(session.devices):
            raise
    # Outside of the except clause, whose error keeps the failed step's tensors alive.
    session.network.zero_grad(set_to_none=True)
    free_memory(session.devices[0])
    note = "out of memory; again with half a batch at a time"
    session.on_progress(session.site.name, "training", 0, task.study.training.steps_per_round, note)
    set_weights(session.network, weights)
    return session.train_round(session.network, task.round, on_step, 2)


@contextmanager
def _machine_in_use(site: SiteConfig, num_devices: int, clock: Clock) -> Iterator[None]:
    """Take the site's devices where hours and policy allow it, and write down for how long.

    Raises:
        RefusedError: not now, no longer today, or the block ran out of memory.
    """
    record = site.state / "device_hours.json"
    start, start_s = clock(), time.monotonic()
    check_hours(site.hours, start)
    check_device_hours(site.policy, device_hours(record, start.date()))
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise RefusedError(Code.OUT_OF_MEMORY, str(error)) from error
        raise
    finally:
        add_device_hours(record, start, time.monotonic() - start_s, num_devices)


def validate_site(
    session: SiteSession, task: RoundTask, weights: Weights, clock: Clock = datetime.now
) -> ValidationMetrics:
    """Aggregate metrics of the shared weights over the site's validation cases, on its first device.

    Raises:
        RefusedError: too few patients to report on, not now, no longer today, or out of memory.
    """
    check_floor(session.site.policy, task.study, len(set(session.validation_patients)))
    start = time.monotonic()

    def on_case(done: int, total: int) -> None:
        session.on_progress(session.site.name, "validating", done, total, "")
        if done < total:
            check_hours(session.site.hours, clock())

    with _machine_in_use(session.site, 1, clock):
        set_weights(session.network, weights)
        rows = validate(session.network, session.validation_cases, task.study, session.devices[0], on_case)
    estimates = {
        name: bootstrap_mean(
            [row[name] for row in rows],
            session.validation_patients,
            task.study.validation.bootstrap_samples,
            np.random.default_rng(derive_seed(task.study.seed, "bootstrap", name)),
        )
        for name in rows[0]
    }
    defined = {name: estimate for name, estimate in estimates.items() if estimate.num_cases}
    return ValidationMetrics(defined, len(rows), time.monotonic() - start)
