"""What a site builds once per process and uses in every round: checked cases, loaders and the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from msfl_client.bids import split_by_patient
from msfl_client.checks import check_site
from msfl_client.egress import Door, check_floor
from msfl_client.ledger import LEDGER_FILE
from msfl_client.patches import PatchDataset, PatchLoader
from msfl_client.preprocess import PreparedCase, prepare_all
from msfl_client.training import pick_device, train_round, validate
from msfl_common.config import SiteConfig, StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages import ModelUpdate, RoundTask, ValidationMetrics
from msfl_common.network import Weights, build_network, get_weights, set_weights
from msfl_common.seeds import derive_seed
from msfl_common.statistics import bootstrap_mean

OnProgress = Callable[[str, str, int, int, str], None]  # site, what it does, done, of how many, note


@dataclass(frozen=True)
class SiteSession:
    """A site, ready for the rounds of one study."""

    site: SiteConfig
    study: StudyConfig
    door: Door
    device: torch.device
    network: torch.nn.Module
    loader: PatchLoader
    num_train_cases: int
    validation_cases: tuple[PreparedCase, ...]
    validation_patients: tuple[str, ...]
    on_progress: OnProgress


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
    device = pick_device(site.device)
    torch.set_flush_denormal(True)  # numbers below 1e-38 slow a CPU down a hundredfold and mean nothing here
    dataset = PatchDataset(
        [usable[case.key] for case in train], study.training, derive_seed(study.seed, "site", site.name)
    )
    return SiteSession(
        site=site,
        study=study,
        door=Door(site.policy, site.state / LEDGER_FILE),
        device=device,
        network=build_network(study),
        loader=PatchLoader(dataset, device),
        num_train_cases=len(train),
        validation_cases=tuple(usable[case.key] for case in validation),
        validation_patients=tuple("/".join(map(str, case.patient)) for case in validation),
        on_progress=on_progress,
    )


def train_site(session: SiteSession, task: RoundTask, weights: Weights) -> ModelUpdate:
    """One round of training from the shared weights."""
    start = time.monotonic()

    def on_step(step: int, num_steps: int, loss: float) -> None:
        session.on_progress(session.site.name, "training", step, num_steps, f"loss {loss:.3f}")

    set_weights(session.network, weights)
    loss = train_round(session.network, session.loader, task.study, task.round, session.device, on_step)
    update = get_weights(session.network)
    return ModelUpdate(update, session.num_train_cases, loss, time.monotonic() - start)


def validate_site(session: SiteSession, task: RoundTask, weights: Weights) -> ValidationMetrics:
    """Aggregate metrics of the shared weights over the site's validation cases.

    Raises:
        RefusedError: too few patients to report on.
    """
    check_floor(session.site.policy, task.study, len(set(session.validation_patients)))
    start = time.monotonic()

    def on_case(done: int, total: int) -> None:
        session.on_progress(session.site.name, "validating", done, total, "")

    set_weights(session.network, weights)
    rows = validate(session.network, session.validation_cases, task.study, session.device, on_case)
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
