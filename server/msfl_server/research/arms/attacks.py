"""What a poisoned or broken site answers: in simulation alone, at its answer, or in what it trains on.

| attack | what the site does |
|---|---|
| label-flip | trains on masks turned round: lesions are healthy, all else of the brain is lesion |
| sign-flip | answers the way that it would have gone, backwards |
| scale | answers ten times the way that it would have gone |
| nan | answers values that are no numbers |
| stale | answers the weights from before the first round, every time |
| collude | all attacked sites go the same way, one that nothing was learned from, each as far as it would have gone |

Of a model of features, whose answers are sums, the sums themselves are turned round, multiplied or lost. No site's own
program has any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.segmentation.network_input import cached_path, save_network_input
from msfl_client.segmentation.usable_cases import usable_cases
from msfl_common.config.classification import DeepModel
from msfl_common.config.stages import study_at
from msfl_common.config.study import StudyConfig
from msfl_common.messages.arrays import ARRAYS
from msfl_common.messages.records import Content, unpack_task
from msfl_common.models.starting_weights import starting_weights
from msfl_common.strategies.declared import parted_layers
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.system.seeds import derive_seed
from msfl_server.research.arms.plan import Run
from msfl_server.research.simulation.federation import Tamper
from msfl_server.research.simulation.folder import RunSetup

SCALE = 10.0
Vector = NDArray[np.floating[Any]]


def tampering(run: Run) -> Tamper | None:
    """What becomes of the answers of a run's attacked sites; None where nothing does."""
    attack = run.attack
    if attack is None or attack.kind == "label-flip":
        return None
    answer_of = _ANSWERS[attack.kind]

    def tamper(site: str, kind: str, request: Content, answer: Content) -> Content:
        if site not in attack.sites or kind.partition(".")[0] != "train" or ARRAYS not in answer.array_records:
            return answer
        task = unpack_task(request)
        is_network = task.settings.classification is None or isinstance(task.settings.classification.model, DeepModel)
        honest = _vector(answer)
        before = np.zeros_like(honest)
        if is_network:
            asked = _vector(request)[: honest.size]
            before[: asked.size] = asked
        _replace(answer, answer_of(honest, before, task.settings).astype(honest.dtype))
        return answer

    return tamper


def _sign_flip(honest: Vector, before: Vector, _: StudyConfig) -> Vector:
    return before - (honest - before)


def _scale(honest: Vector, before: Vector, _: StudyConfig) -> Vector:
    return before + SCALE * (honest - before)


def _nan(honest: Vector, _: Vector, __: StudyConfig) -> Vector:
    return np.full_like(honest, np.nan)


def _stale(honest: Vector, before: Vector, study: StudyConfig) -> Vector:
    first = _first_weights(study)[: honest.size]
    return np.concatenate([first, before[first.size :]])


def _collude(honest: Vector, before: Vector, study: StudyConfig) -> Vector:
    direction = np.random.default_rng(derive_seed(study.seed, "collude")).standard_normal(honest.size)
    return before + float(np.linalg.norm(honest - before)) * direction / float(np.linalg.norm(direction))


_ANSWERS: dict[str, Callable[[Vector, Vector, StudyConfig], Vector]] = {
    "sign-flip": _sign_flip,
    "scale": _scale,
    "nan": _nan,
    "stale": _stale,
    "collude": _collude,
}


@cache
def _first_weights(study: StudyConfig) -> Vector:
    shared, _ = parted_layers(study.strategy or FedAvg(), starting_weights(study))
    return np.concatenate([value.reshape(-1) for value in shared.values()])


def _vector(content: Content) -> Vector:
    return np.concatenate([block.numpy().reshape(-1) for block in content.array_records[ARRAYS].values()])


def _replace(content: Content, vector: Vector) -> None:
    record, start = content.array_records[ARRAYS], 0
    for name in list(record):
        block = record[name]
        size = block.numpy().size
        record[name] = type(block)(np.ascontiguousarray(vector[start : start + size]))
        start += size


def prepare_attack(run: Run, setup: RunSetup) -> None:
    """Let an attacked site find the masks of its cases turned round: in the cache of this run alone."""
    if run.attack is None or run.attack.kind != "label-flip":
        return
    study = study_at(run.study, "final")
    for honest, attacked in zip(run.members, setup.sites, strict=True):
        if honest.name not in run.attack.sites:
            continue
        folder = attacked.state / "cache"
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(exist_ok=True)
        cases, prepared, _ = usable_cases(honest, study, lambda *_: None)
        for case in cases:
            one = prepared[case.key]
            assert one.label_DHW is not None
            brain_DHW = np.any(one.image_CDHW > one.image_CDHW.min(axis=(1, 2, 3), keepdims=True), axis=0)
            flipped = (brain_DHW & (one.label_DHW == 0)).astype(np.uint8)
            path = cached_path(case, study.inputs, folder)
            save_network_input(path, type(one)(one.image_CDHW, flipped, one.affine))
