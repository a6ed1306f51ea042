"""What a site has spent on its patients: each release with noise, and of whom, across studies and resumes.

`privacy/spent.json` in the state folder has a line for each release, written before its answer leaves. The same release
again, which has the same noise and so the same bytes, costs nothing. Releases add up for each patient by himself: what
counts is the patient of whom most was told. Patients stand there by a digest of their names.

Studies without differential privacy tell of patients without any bound, and are not in it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msfl_client.privacy.noise import FOLDER
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.privacy_accounting import Mechanism, epsilon_of, in_words, private_rounds, released_in_round
from msfl_common.system.files import private_folder, write_bytes
from msfl_common.system.words import counted

SPENT_FILE = Path(FOLDER) / "spent.json"
Releases = list[tuple[Mechanism, int]]


class Release(BaseModel):
    """One release with noise.

    Attributes:
        digest: names it; see `Noise`.
        study: name of the whole study.
        stage: name of its stage's study.
        settings: digest of that study's settings; the same name with others is another study.
        round: from 1.
        noise_multiplier: see `Mechanism`.
        sampling_rate: see `Mechanism`.
        times: how often the mechanism was run, as in the steps of a round.
        patients: digest of the set of patients, a key of `Spent.patients`.
        delta: of the study.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    study: str
    stage: str
    settings: str
    round: int = Field(ge=1)
    noise_multiplier: float = Field(gt=0)
    sampling_rate: float = Field(gt=0, le=1)
    times: int = Field(ge=1)
    patients: str
    delta: float = Field(gt=0, lt=1)

    @property
    def cost(self) -> tuple[Mechanism, int]:
        """What it adds to the patients' spending."""
        return Mechanism(self.noise_multiplier, self.sampling_rate), self.times


class Spent(BaseModel):
    """All releases, in their order, and the sets of patients that they were of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    releases: tuple[Release, ...] = ()
    patients: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)

    def has(self, digest: str) -> bool:
        """Whether this very release was made."""
        return any(one.digest == digest for one in self.releases)

    def with_release(self, release: Release, patients: Collection[str]) -> Spent:
        """The same with one release more, of these patients."""
        return Spent(
            releases=(*self.releases, release), patients={**self.patients, release.patients: tuple(sorted(patients))}
        )

    def most(self, patients: Iterable[str], delta: float, planned: Releases | None = None) -> float:
        """The largest epsilon of any of some patients, with what is planned for all of them."""
        by_sets: dict[frozenset[str], Releases] = {}
        wanted, sets_of = frozenset(patients), defaultdict[str, set[str]](set)
        for name, members in self.patients.items():
            for one in wanted.intersection(members):
                sets_of[one].add(name)
        for found in {frozenset(sets_of.get(one, ())) for one in wanted}:
            by_sets[found] = [one.cost for one in self.releases if one.patients in found]
        return max((epsilon_of([*costs, *(planned or [])], delta) for costs in by_sets.values()), default=0.0)

    def most_of_all(self) -> list[tuple[float, float]]:
        """The largest epsilon of any patient, at each delta that a study had; none where nothing was released."""
        deltas = sorted({one.delta for one in self.releases})
        return [(self.most(self.everyone(), delta), delta) for delta in deltas]

    def everyone(self) -> frozenset[str]:
        """All patients of whom anything was told."""
        return frozenset(one for members in self.patients.values() for one in members)


@dataclass(frozen=True)
class Budget:
    """A site's spending, and its limit.

    Attributes:
        state: the site's state folder.
        max_epsilon: of its policy.
    """

    state: Path
    max_epsilon: float | None = None

    def read(self) -> Spent:
        """What was spent so far.

        Raises:
            RefusedError: it cannot be read.
        """
        return read_spent(self.state)

    def expect_room(self, study: StudyConfig, stage: Stage, number: int, patients: Iterable[str]) -> None:
        """Refuse a round where the rest of its study would spend more than the policy allows.

        Args:
            study: the whole of it.
            stage: which of its stages.
            number: the round, from 1.
            patients: names of who trains.

        Raises:
            RefusedError: with the code POLICY; the line says what is spent, and what the study would spend.
        """
        private = study.differential_privacy
        if self.max_epsilon is None or private is None or not private.promises:
            return
        spent, of = self.read(), _digests(patients)
        total = spent.most(of, private.delta, _to_come(study, stage, number, spent))
        if total > self.max_epsilon:
            before = spent.most(of, private.delta)
            raise RefusedError(
                Code.POLICY,
                f"study {study.name} would bring what is spent on a patient from epsilon {before:.4g} to "
                f"{total:.4g} at delta {private.delta:g}, at most {self.max_epsilon:g} (`policy.max_epsilon`)",
            )

    def spend(self, release: Release, patients: Iterable[str]) -> None:
        """Write a release down, before anything of it leaves; the same one again costs nothing.

        Raises:
            RefusedError: it is more than the policy allows (POLICY), or what was spent cannot be read (INTERNAL).
            OSError: it cannot be written.
        """
        spent, of = self.read(), _digests(patients)
        if spent.has(release.digest):
            return
        after = spent.with_release(release, of)
        if self.max_epsilon is not None and (total := after.most(of, release.delta)) > self.max_epsilon:
            raise RefusedError(
                Code.POLICY,
                f"another answer to round {release.round} of {release.stage} would be {in_words(total, release.delta)} "
                f"for a patient, at most {self.max_epsilon:g} (`policy.max_epsilon`)",
            )
        path = self.state / SPENT_FILE
        private_folder(path.parent, within=self.state)
        write_bytes(path, after.model_dump_json().encode(), secret=True)


def read_spent(state: Path) -> Spent:
    """What a site has spent on its patients.

    Raises:
        RefusedError: it cannot be read.
    """
    path = state / SPENT_FILE
    try:
        return Spent.model_validate_json(path.read_bytes()) if path.exists() else Spent()
    except (OSError, ValidationError):
        raise RefusedError(
            Code.INTERNAL, f"{path}: what was spent on patients cannot be read; restore its newest backup"
        ) from None


def release_of(study: StudyConfig, part_of: str, number: int, digest: str, patients: Iterable[str]) -> Release:
    """A round of a stage as it is written down; `study` is the stage's, `part_of` the whole study's name."""
    (mechanism, times), private = released_in_round(study), study.differential_privacy
    assert private is not None
    return Release(
        digest=digest,
        study=part_of,
        stage=study.name,
        settings=settings_sha256(study),
        round=number,
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        times=times,
        patients=set_digest(patients),
        delta=private.delta,
    )


def set_digest(patients: Iterable[str]) -> str:
    """Names a set of patients."""
    return hashlib.sha256("\n".join(sorted(_digests(patients))).encode()).hexdigest()[:32]


def _digests(patients: Iterable[str]) -> frozenset[str]:
    return frozenset(hashlib.sha256(f"patient:{name}".encode()).hexdigest()[:32] for name in patients)


def _to_come(study: StudyConfig, stage: Stage, number: int, spent: Spent) -> Releases:
    """What a study will still release from a round on, but for rounds that were answered."""
    stages = stages_of(study)
    answered = {(one.settings, one.round) for one in spent.releases}
    releases: Releases = []
    for later in stages[stages.index(stage) :]:
        settings = study_at(study, later)
        mechanism, times = released_in_round(settings)
        first, digest = (number if later == stage else 1), settings_sha256(settings)
        left = sum((digest, each) not in answered for each in range(first, private_rounds(settings) + 1))
        releases.append((mechanism, times * left))
    return releases


def spent_lines(state: Path, max_epsilon: float | None) -> list[str]:
    """What is spent on a site's patients, in words; none where no study with noise was answered.

    Raises:
        InputError: it cannot be read.
    """
    spent = _shown_spent(state)
    studies = {one.study for one in spent.releases}
    of = f"({counted(len(spent.releases), 'release')}, studies: {', '.join(sorted(studies))})"
    limit = "" if max_epsilon is None else f", at most {max_epsilon:g} (`policy.max_epsilon`)"
    rest = "" if max_epsilon is not None else "; studies without differential privacy are not in it"
    return [
        f"spent on a patient: {in_words(epsilon, delta)}{limit} {of}{rest}" for epsilon, delta in spent.most_of_all()
    ]


def spent_document(state: Path, max_epsilon: float | None) -> dict[str, Any]:
    """The same for programs.

    Raises:
        InputError: it cannot be read.
    """
    spent = _shown_spent(state)
    return {
        "spent": [{"epsilon": epsilon, "delta": delta} for epsilon, delta in spent.most_of_all()],
        "max_epsilon": max_epsilon,
        "releases": len(spent.releases),
    }


def _shown_spent(state: Path) -> Spent:
    """What was spent, for a command: a damaged record is the person's to mend."""
    try:
        return read_spent(state)
    except RefusedError as error:
        raise InputError(error.why) from None


def spending_on(state: Path, patients: Iterable[str], delta: float) -> tuple[float, int]:
    """The largest epsilon of any of these patients, and the number of all releases.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    spent = read_spent(state)
    return spent.most(_digests(patients), delta), len(spent.releases)


def spending_again(state: Path, study: StudyConfig, part_of: str, number: int) -> tuple[float, int]:
    """The same for the patients of a round that was answered before; see `release_of`.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    spent, private = read_spent(state), study.differential_privacy
    assert private is not None
    named = (part_of, study.name, settings_sha256(study), number)
    of = {one.patients for one in spent.releases if (one.study, one.stage, one.settings, one.round) == named}
    patients = {patient for name in of for patient in spent.patients[name]}
    return spent.most(patients, private.delta), len(spent.releases)
