"""A deployed site of tables alone, asked through its own app, whose answers are counted: rounds, studies, splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.clientapp import ClientApp

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.classification import Classification
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import RefusedError
from msfl_common.feature_models import State, contribution_like, first_state, is_finished
from msfl_common.messages.records import (
    RoundTask,
    ValidationMetrics,
    pack_task,
    unpack_metrics,
    unpack_refusal,
    unpack_update,
)
from msfl_common.metrics.registry import TASK_METRICS
from msfl_common.system.seeds import derive_seed
from msfl_server.aggregation.feature_models.combine import combine
from msfl_server.research.simulation.grid import InProcessGrid
from tests.clinical_site import Tables

COLUMNS = ("participant_id", "age", "sex", "edss", "course")
UNBOUNDED: Mapping[str, Any] = {"max_release": None, "max_evaluations": 10**6}


def tell_nobody(*_: object) -> None:
    """One function, so that a context stays open."""


def write_people(folder: Path, cases: Dataset) -> None:
    """Age, sex, EDSS and label of each, as participants.tsv."""
    rows = zip(cases.patients, cases.features_NP, cases.labels_N, strict=True)
    lines = [(f"sub-{who}", age, "FM"[int(sex)], edss, f"c{label}") for who, (age, sex, edss), label in rows]
    Tables(folder).participants(COLUMNS, *lines)


def study_of(name: str = "first", kind: str = "logistic", **changes: Any) -> StudyConfig:
    """A study of age, sex and EDSS."""
    classification = {
        "outcome": {"column": "course", "classes": ["c0", "c1"]},
        "clinical": ["age", "sex", "edss"],
        "model": {"kind": kind, **changes.pop("model", {})},
        **changes.pop("classification", {}),
    }
    content = {"name": name, "task": "classification", "classification": classification}
    return StudyConfig.model_validate(content | {"rounds": {"num_rounds": 30}} | changes)


@dataclass
class Deployed:
    """A site, and the study that it is asked for."""

    folder: Path
    study: StudyConfig = field(default_factory=study_of)
    policy: Mapping[str, Any] = field(default_factory=dict)
    round: int = 0

    @property
    def site(self) -> SiteConfig:
        policy = Policy(tasks=("classification",), refuse_models=(), **self.policy)
        return SiteConfig(name="here", data=(self.folder,), state=self.folder.parent / "state", policy=policy)

    @property
    def settings(self) -> Classification:
        assert self.study.classification is not None
        return self.study.classification

    @property
    def training(self) -> Dataset:
        """Cases that the study learns from."""
        learned: Dataset = open_context(self.site, self.study, tell_nobody).learner._learned  # type: ignore[attr-defined]
        return learned

    def ask(self, state: State) -> State:
        """One more round.

        Raises:
            RefusedError: with the code that left, and what stands in the site's log.
        """
        self.round += 1
        content = pack_task(RoundTask(self.study, self.round), state)
        expected = contribution_like(self.settings, state)
        return dict(unpack_update(self._send("train", content), expected=expected).weights)

    def measure(self, state: State, split: Any = "validation", threshold: float = 0.5) -> ValidationMetrics:
        """One more validation, or the test."""
        self.round += 1
        task = RoundTask(self.study, self.round, split=split, threshold=threshold)
        return unpack_metrics(
            self._send("evaluate", pack_task(task, state)), frozenset(TASK_METRICS["classification"]), 2
        )

    def play(self, num_rounds: int = 30) -> tuple[list[State], list[State]]:
        """The states of a study among this site alone, and its answers."""
        states, answers = [first_state(self.settings, derive_seed(self.study.seed, "weights"))], []
        while len(answers) < num_rounds and not is_finished(self.settings, states[-1]):
            answers.append(self.ask(states[-1]))
            num_cases = len(self.training.labels_N)
            states.append(combine(self.settings, states[-1], {"here": (answers[-1], num_cases)}))
        return states, answers

    def _send(self, kind: str, content: Any) -> Any:
        (reply,) = InProcessGrid(self._app, 1).send_and_receive([Message(content, 1, kind)])
        if (refusal := unpack_refusal(reply.content)) is not None:
            raise RefusedError(refusal.code, (self.site.state / "site.log").read_text().splitlines()[-1])
        return reply.content

    @property
    def _app(self) -> ClientApp:
        site = self.site
        return build_app(lambda _: site, tell_nobody, cache_answers=True)


def people(seed: int, number: int) -> Dataset:
    """Patients whose values lie on a coarse grid, so that few equations tell much."""
    rng = np.random.default_rng(seed)
    edss = np.minimum(np.round(rng.gamma(2, 2.4, number) * 2) / 2, 9.5)
    sex = (rng.random(number) < 0.3).astype(float)
    worse = (edss + 2 * rng.normal(size=number) > 2.5).astype(np.int64)
    values = np.column_stack([rng.integers(20, 61, number), sex, edss])
    return Dataset(("age", "sex", "edss"), values, worse, tuple(f"{who:03d}" for who in range(number)))
