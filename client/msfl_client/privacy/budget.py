"""What a site spends on its patients, held against its policy, across studies and resumes.

The same release again, which has the same noise and so the same bytes, costs nothing. Who the patients are, and where
it is written down: `privacy.spent`. Studies without differential privacy tell of patients without any bound, and are
not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfl_client.privacy.noise import FOLDER
from msfl_client.privacy.spent import Release, Releases, Spent, keep_release, read_spent
from msfl_client.trainer import Identities
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.privacy_accounting import in_words, private_rounds, released_in_round
from msfl_common.system.files import private_folder
from msfl_common.system.lock import in_turn
from msfl_common.system.words import counted

_LOCK = "spent.lock"


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

    def expect_room(self, study: StudyConfig, stage: Stage, number: int, of: Identities) -> None:
        """Refuse a round where the rest of its study would spend more than the policy allows.

        Args:
            study: the whole of it.
            stage: which of its stages.
            number: the round, from 1.
            of: who trains.

        Raises:
            RefusedError: with the code POLICY; the line says what is spent, and what the study would spend.
        """
        private = study.differential_privacy
        if self.max_epsilon is None or private is None or not private.promises:
            return
        spent = self.read()
        people = spent.known(of).people
        total = spent.most(people, private.delta, _to_come(study, stage, number, spent))
        if total > self.max_epsilon:
            before = spent.most(people, private.delta)
            raise RefusedError(
                Code.POLICY,
                f"study {study.name} would bring what is spent on a patient from epsilon {before:.4g} to "
                f"{total:.4g} at delta {private.delta:g}, at most {self.max_epsilon:g} (`policy.max_epsilon`)",
            )

    def spend(self, release: Release, of: Identities) -> None:
        """Write a release down, before anything of it leaves; the same one again costs nothing.

        Raises:
            RefusedError: it is more than the policy allows (POLICY), or what was spent cannot be read (INTERNAL).
            InputError: the key of what was spent is not there.
            OSError: it cannot be written.
        """
        private_folder(self.state / FOLDER, within=self.state)
        with in_turn(self.state / FOLDER / _LOCK):  # of two processes, the second counts what the first has spent
            self._spend(release, of)

    def _spend(self, release: Release, of: Identities) -> None:
        spent = self.read()
        if spent.has(release.digest):
            return
        told = spent.known(of)
        after = spent.with_release(release, told)
        if self.max_epsilon is not None and (total := after.most(told.people, release.delta)) > self.max_epsilon:
            raise RefusedError(
                Code.POLICY,
                f"another answer to round {release.round} of {release.stage} would be {in_words(total, release.delta)} "
                f"for a patient, at most {self.max_epsilon:g} (`policy.max_epsilon`)",
            )
        keep_release(self.state, spent, release, told)


def release_of(study: StudyConfig, part_of: str, number: int, digest: str) -> Release:
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
        delta=private.delta,
    )


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


def spending_on(state: Path, of: Identities, delta: float) -> tuple[float, int]:
    """The largest epsilon of any of these patients, and the number of all releases.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    spent = read_spent(state)
    return spent.most(spent.known(of).people, delta), len(spent.releases)


def spending_again(state: Path, study: StudyConfig, part_of: str, number: int) -> tuple[float, int]:
    """The same for the patients of a round that was answered before; see `release_of`.

    Raises:
        RefusedError: what was spent cannot be read.
    """
    spent, private = read_spent(state), study.differential_privacy
    assert private is not None
    named = (part_of, study.name, settings_sha256(study), number)
    of = {one.patients for one in spent.releases if (one.study, one.stage, one.settings, one.round) == named}
    people = {one for name in of for one in spent.told[name].people}
    return spent.most(people, private.delta), len(spent.releases)
