"""What a site has given out about its patients, over all rounds, folds and studies, and how much more it may.

Enough exact numbers about the same values are equations with one solution, whichever studies they were given to. So
each number of a sum is spread evenly over the values that it is a sum of (inputs of cases, each an unknown), and no
value may bear more than a share of one number (`policy.max_release`). Then no group of values, however it is picked,
has as many numbers about it as it has values. A metric is a counting query: no patient is measured more often than
`policy.max_evaluations` times with another model. The defaults are what measured attacks did not reach
(`tests/benchmarks/privacy/release_bounds.py`). Sums of nearly the same patients: see `overlaps`.

`budget/` in the state folder holds what was given out, and a file for each set of cases in `sets/`, encrypted with a
key of the site's own (`site.account_files`). Both are written, to the disk, before anything leaves. What was given out
before costs nothing, in whatever study. It is kept when a study's answers are forgotten (`msfl-client reset-answers`);
only `msfl-client reset-budget` forgets it.

Legend: N cases, P inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from msfl_client.disclosure.case_sets import keep_set, read_set
from msfl_client.disclosure.overlaps import expect_apart
from msfl_client.disclosure.releases import count_numbers
from msfl_client.disclosure.same_values import as_known
from msfl_client.site.account_files import SETS, SUFFIX, read_account_file, write_account_file
from msfl_client.trainer import About
from msfl_common.errors import AccountError, Code, InputError, RefusedError
from msfl_common.system.files import private_folder
from msfl_common.system.lock import in_turn

FOLDER = "budget"
FILE = f"given{SUFFIX}"
_LOCK = "given.lock"
_ABOUT = TypeAdapter(About)
_HELPS = "fewer inputs or rounds, more patients or, agreed with the privacy officer, a higher"

Planned = tuple[About, int]  # numbers about some cases


class Given(BaseModel):
    """What one study was given about one set of cases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    about: str = Field(description="name of the set of cases, and of its file")
    answers: dict[str, int] = Field(description="digest of each array to the numbers in it")


_GIVEN = TypeAdapter(tuple[Given, ...])


@dataclass(frozen=True)
class Limits:
    """What a site's policy, and the study's floor, allow.

    Attributes:
        share: most numbers that a value may bear; None: counted, and not bounded.
        evaluations: most measurements of a patient.
        floor: fewest patients that sums may differ by; with 1, single patients are not protected, and nothing is held.
    """

    share: float | None
    evaluations: int
    floor: int


@dataclass(frozen=True)
class Spent:
    """How much of a budget is spent.

    Attributes:
        numbers: given out about the values that were asked most about, as if all were.
        values: inputs times cases.
        most: numbers that may be given out about so many values; None: any.
    """

    numbers: int
    values: int
    most: int | None

    def __str__(self) -> str:
        most = "" if self.most is None else f", at most {self.most}"
        return f"{self.numbers} numbers about {self.values} values{most}"


@dataclass(frozen=True)
class Budget:
    """What was given out so far.

    Attributes:
        state: the site's state folder.
        given: in the order of first answers.
    """

    state: Path
    given: tuple[Given, ...] = ()

    @cached_property
    def sets(self) -> Mapping[str, About]:
        """The cases of all that was given, by name of the set.

        Raises:
            InputError: a file cannot be read.
        """
        try:
            return {one.about: read_set(self.state / FOLDER, one.about, _ABOUT) for one in self.given}
        except InputError as error:
            raise _unreadable(str(error)) from None

    def spent_by_value(self, about: About, planned: Sequence[Planned] = ()) -> NDArray[np.float64]:
        """Numbers that each value bears, N x P, with those that are planned."""
        spent_NP = np.zeros((len(about.keys), len(about.inputs)))
        given = [(self.sets[one.about], sum(one.answers.values())) for one in self.given]
        for other, numbers in (*given, *planned):
            if other.kind == "metrics" or not (other.keys and other.inputs):
                continue
            keys, inputs = set(other.keys), set(other.inputs)
            rows = np.array([key in keys for key in about.keys], dtype=bool)
            columns = np.array([name in inputs for name in about.inputs], dtype=bool)
            spent_NP[np.ix_(rows, columns)] += numbers / (len(other.keys) * len(other.inputs))
        return spent_NP

    def spent(self, about: About, limits: Limits, planned: Sequence[Planned] = ()) -> Spent:
        """How much of the budget of some cases is spent."""
        values = len(about.keys) * len(about.inputs)
        numbers = round(float(self.spent_by_value(about, planned).max(initial=0.0)) * values)
        return Spent(numbers, values, None if limits.share is None else int(limits.share * values))

    def evaluations(self, about: About) -> int:
        """How often the patient was measured who was measured most often."""
        counts = dict.fromkeys(about.keys, 0)
        for one in self.given:
            if (other := self.sets[one.about]).kind == "metrics":
                for key in counts.keys() & set(other.keys):
                    counts[key] += len(one.answers)
        return max(counts.values(), default=0)

    def news(self, about: About, answer: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
        """What an answer tells that was not told before, as `Given.answers`."""
        name = self._name_of(about)
        told = {digest for one in self.given if one.about == name for digest in one.answers}
        digests = {_digest(key, value): count_numbers({key: value}) for key, value in answer.items()}
        return {digest: numbers for digest, numbers in digests.items() if digest not in told}

    def is_new(self, study: str, about: About) -> bool:
        """Whether nothing about these cases was given to a study."""
        return not any(one.study == study and one.about == self._name_of(about) for one in self.given)

    def as_known(self, about: About, present: Sequence[About]) -> About:
        """Cases under the names of earlier answers about them; see `same_values`."""
        return as_known(about, self.sets.values(), present)

    def expect_room(self, planned: Sequence[Planned], limits: Limits) -> None:
        """Refuse sums that a budget has no room for, or of nearly the cases of earlier ones.

        Raises:
            RefusedError: with the code BUDGET_SPENT.
        """
        if limits.floor <= 1:
            return
        for about, _ in planned:
            self._expect_apart(about, limits)
            after = self.spent(about, limits, planned)
            if after.most is not None and after.numbers >= after.most:
                before = self.spent(about, limits)
                raise RefusedError(
                    Code.BUDGET_SPENT,
                    f"{len(about.keys)} cases of {len(about.inputs)} inputs are {after.values} values, about which all "
                    f"studies may have less than {after.most} numbers; {before.numbers} are given out, and "
                    f"{after.numbers - before.numbers} more were needed: {_HELPS} policy.max_release",
                )

    def expect_evaluation(self, about: About, limits: Limits) -> None:
        """Refuse to measure patients once more.

        Raises:
            RefusedError: with the code BUDGET_SPENT.
        """
        if limits.floor <= 1:
            return
        self._expect_apart(about, limits)
        if (done := self.evaluations(about)) >= limits.evaluations:
            raise RefusedError(
                Code.BUDGET_SPENT,
                f"these patients were measured {done} times, at most {limits.evaluations}: {_HELPS} "
                "policy.max_evaluations",
            )

    def keep(self, study: str, about: About, news: Mapping[str, int], expect: Callable[[Budget], None]) -> None:
        """Write down what is about to leave, one process at a time.

        Args:
            study: whom it is given to.
            about: the cases.
            news: of `news`.
            expect: refuses where there is no room for it; asked again where another process has given out something
                since this was read.

        Raises:
            RefusedError: see `expect`.
            OSError: it cannot be written; nothing may leave then.
            InputError: other accounts may enter where it is to lie.
        """
        if not news:
            return
        private_folder(self.state / FOLDER, within=self.state)
        with in_turn(self.state / FOLDER / _LOCK):
            now = read_budget(self.state)
            if now.given != self.given:
                expect(now)
            now._add(study, about, news)

    def _add(self, study: str, about: About, news: Mapping[str, int]) -> None:
        if not self.given:  # first, so that sets without it are those of one that was lost
            _write_given(self.state, ())
        name = self._name_of(about) or keep_set(self.state / FOLDER, about, _ABOUT)
        before = {one.study: one for one in self.given if one.about == name}
        answers = before[study].answers if study in before else {}
        made = Given(study=study, about=name, answers={**answers, **news})
        others = tuple(one for one in self.given if one.about != name or one.study != study)
        _write_given(self.state, (*others, made))

    def _name_of(self, about: About) -> str | None:
        """The name of the set of these very cases and values; None: nothing was given about it."""
        return next((name for name, one in self.sets.items() if one == about), None)

    def _expect_apart(self, about: About, limits: Limits) -> None:
        if self._name_of(about) is None:
            studies = {one.about: one.study for one in self.given}
            expect_apart(about, [(studies[name], other) for name, other in self.sets.items()], limits.floor)


def read_budget(state: Path) -> Budget:
    """What a site has given out.

    Raises:
        InputError: it cannot be read.
    """
    folder = state / FOLDER
    try:
        _encrypt_former(state)
        if not folder.exists() or (folder.is_dir() and not any(folder.rglob(f"*{SUFFIX}"))):
            return Budget(state)
        return Budget(state, _GIVEN.validate_json(read_account_file(state, folder / FILE)))
    except (ValidationError, KeyError):
        raise _unreadable(f"{folder}: damaged; restore it from a backup") from None
    except (OSError, InputError) as error:
        raise _unreadable(str(error)) from None


def _digest(name: str, value: NDArray[np.float64]) -> str:
    array = np.ascontiguousarray(value, dtype=np.float64)
    return hashlib.sha256(f"{name}{array.shape}".encode() + array.tobytes()).hexdigest()[:32]


def _write_given(state: Path, given: Sequence[Given]) -> None:
    write_account_file(state, state / FOLDER / FILE, _GIVEN.dump_json(tuple(given)))


def _encrypt_former(state: Path) -> None:
    """Encrypt what an earlier version wrote in plain text; where that was cut short, it is done again from the start.

    Raises:
        ValidationError, KeyError: it is damaged.
        InputError: see `write_account_file`.
        OSError: it cannot be read or written.
    """
    folder = state / FOLDER
    former, sets = folder / "given.json", [*(folder / SETS).glob("*.json")]
    if not (former.exists() or (folder / FILE).exists()) and sets:
        raise InputError(f"{former}: is not there, and what it is of is; restore it from a backup")
    if former.exists() and (folder / FILE).exists() and former.stat().st_mtime_ns > (folder / FILE).stat().st_mtime_ns:
        raise InputError(
            f"{former}: an earlier version of MSFL counted here after this one had begun to; move one of the two away, "
            f"{former.name} or {FILE}"
        )
    if former.exists() and not (folder / FILE).exists():
        names = {path.stem: keep_set(folder, _ABOUT.validate_json(path.read_bytes()), _ABOUT) for path in sets}
        given = _GIVEN.validate_json(former.read_bytes())
        _write_given(state, [one.model_copy(update={"about": names[one.about]}) for one in given])
    for path in (former, *sets):
        path.unlink(missing_ok=True)


def _unreadable(why: str) -> AccountError:
    return AccountError(
        f"what was given out about patients cannot be read: {why}, or forget all of it with `msfl-client reset-budget`"
    )
