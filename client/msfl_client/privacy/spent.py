"""A site's record of what it has spent on its patients, on its disk: each release with noise, and whom it was of.

`privacy/spent.json` in the state folder has a line for each release, written before its answer leaves, and
`privacy/sets/` whom each was of, encrypted with a key of the site's own (`site.account_files`). Releases add up for
each patient by himself: what counts is the patient of whom most was told. Patients are known by their images and
values, whatever they are called (`disclosure.same_values`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from msfl_client.disclosure.case_sets import keep_set, new_name, read_set
from msfl_client.disclosure.same_values import people_as_known
from msfl_client.privacy.noise import FOLDER
from msfl_client.site.account_files import SETS, SUFFIX
from msfl_client.trainer import About, Identities
from msfl_common.errors import AccountError, Code, InputError, RefusedError
from msfl_common.privacy_accounting import Mechanism, epsilon_of
from msfl_common.system.files import private_folder, write_bytes

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
        patients: name of the set of patients, a key of `Spent.told`; empty until it is written down.
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
    patients: str = ""
    delta: float = Field(gt=0, lt=1)

    @property
    def cost(self) -> tuple[Mechanism, int]:
        """What it adds to the patients' spending."""
        return Mechanism(self.noise_multiplier, self.sampling_rate), self.times


class Told(BaseModel):
    """Whom a release was of.

    Attributes:
        cases: what tells who they are, under the names of earlier releases; see `Identities.training`.
        people: the names of each patient: more than one, where his images tell another than his values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cases: tuple[About, ...]
    people: frozenset[frozenset[str]]


class Record(BaseModel):
    """What stands in `spent.json`: all releases, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    releases: tuple[Release, ...] = ()
    sets: frozenset[str] | None = Field(
        None, description="names of the sets of patients, each before its file is written; earlier versions said none"
    )
    patients: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="of earlier versions: digests of the names in each set"
    )


_TOLD = TypeAdapter(Told)


@dataclass(frozen=True)
class Spent:
    """All releases, in their order, and whom they were of, by name of the set."""

    releases: tuple[Release, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)

    def has(self, digest: str) -> bool:
        """Whether this very release was made."""
        return any(one.digest == digest for one in self.releases)

    def known(self, of: Identities) -> Told:
        """Patients under the names of earlier releases."""
        earlier = [one for told in self.told.values() for one in told.cases]
        cases, people = people_as_known(of.training, earlier, of.present)
        return Told(cases=cases, people=people)

    def with_release(self, release: Release, told: Told) -> Spent:
        """The same with one release more."""
        return Spent((*self.releases, release), {**self.told, release.patients: told})

    def most(self, people: Iterable[frozenset[str]], delta: float, planned: Releases | None = None) -> float:
        """The largest epsilon of any of some patients, each by his names, with what is planned for all of them."""
        sets_of = defaultdict[str, set[str]](set)
        for name, told in self.told.items():
            for one in frozenset[str]().union(*told.people):
                sets_of[one].add(name)
        found = {frozenset(name for known in self._names(names) for name in sets_of[known]) for names in people}
        of_sets = [[one.cost for one in self.releases if one.patients in sets] for sets in found]
        return max((epsilon_of([*costs, *(planned or [])], delta) for costs in of_sets), default=0.0)

    def most_of_all(self) -> list[tuple[float, float]]:
        """The largest epsilon of any patient, at each delta that a study had; none where nothing was released."""
        deltas = sorted({one.delta for one in self.releases})
        return [(self.most(self.everyone(), delta), delta) for delta in deltas]

    def _names(self, names: frozenset[str]) -> frozenset[str]:
        """All names of a patient, by some of them: those that any release tells to be of one."""
        known = names.union(*(self._alike.get(one, ()) for one in names))
        return known | {_former_digest(one) for one in known}

    @cached_property
    def _alike(self) -> dict[str, frozenset[str]]:
        """Each name to all of its patient, of those who have several."""
        alike: dict[str, frozenset[str]] = {}
        for names in self.everyone():
            if len(names) > 1:
                merged = names.union(*(alike.get(one, ()) for one in names))
                alike |= dict.fromkeys(merged, merged)
        return alike

    def everyone(self) -> frozenset[frozenset[str]]:
        """All patients of whom anything was told."""
        return frozenset[frozenset[str]]().union(*(told.people for told in self.told.values()))


def read_spent(state: Path) -> Spent:
    """What a site has spent on its patients.

    Raises:
        RefusedError: it cannot be read.
    """
    path = state / SPENT_FILE
    try:
        present = frozenset(one.name.removesuffix(SUFFIX) for one in (state / FOLDER / SETS).glob(f"*{SUFFIX}"))
        if not path.exists() and present:
            raise AccountError(f"{path}: is not there, and what it is of is; restore its newest backup")
        record = Record.model_validate_json(path.read_bytes()) if path.exists() else Record()
        _expect_all_named(path, record, present)
        if record.patients:
            record = _encrypt_former(state, record)
        names = dict.fromkeys(one.patients for one in record.releases)
        return Spent(record.releases, {name: read_set(state / FOLDER, name, _TOLD) for name in names})
    except (OSError, ValidationError, KeyError):
        raise RefusedError(
            Code.INTERNAL, f"{path}: what was spent on patients cannot be read; restore its newest backup"
        ) from None
    except InputError as error:
        raise RefusedError(Code.INTERNAL, f"what was spent on patients cannot be read: {error}") from None


def _expect_all_named(path: Path, record: Record, present: frozenset[str]) -> None:
    """Refuse a record that lacks what its sets are of: an older one, or one that somebody has begun anew.

    Raises:
        AccountError: it does.
    """
    if record.sets is None and (record.releases or record.patients):
        return  # of an earlier version, which named the sets of releases alone
    if present - (record.sets or frozenset()):
        raise AccountError(f"{path}: does not name all sets of patients beside it; restore its newest backup")


def keep_release(state: Path, spent: Spent, release: Release, told: Told) -> None:
    """Write a release down, with whom it was of.

    Raises:
        InputError: the key of what was spent is not there.
        OSError: it cannot be written.
    """
    name = next((name for name, one in spent.told.items() if one == told), None)
    if name is None:
        name = new_name()
        _write(state, spent.releases, name)  # first, so that a set that no record names is of one that was lost
        keep_set(state / FOLDER, told, _TOLD, name)
    _write(state, (*spent.releases, release.model_copy(update={"patients": name})))


def _write(state: Path, releases: tuple[Release, ...], *more: str) -> None:
    """The record, which names all sets that are there, and those that are to come."""
    path = state / SPENT_FILE
    private_folder(path.parent, within=state)
    present = (one.name.removesuffix(SUFFIX) for one in (state / FOLDER / SETS).glob(f"*{SUFFIX}"))
    record = Record(releases=releases, sets=frozenset((*present, *more)))
    write_bytes(path, record.model_dump_json(exclude={"patients"}).encode(), secret=True)


def _encrypt_former(state: Path, record: Record) -> Record:
    """Sets as an earlier version wrote them, by digests of names alone, which patients are known by as ever."""
    names = {
        name: keep_set(state / FOLDER, Told(cases=(), people=frozenset(frozenset([one]) for one in members)), _TOLD)
        for name, members in record.patients.items()
    }
    releases = tuple(one.model_copy(update={"patients": names[one.patients]}) for one in record.releases)
    _write(state, releases)
    return Record(releases=releases)


def _former_digest(name: str) -> str:
    """How an earlier version wrote a patient's name down."""
    return hashlib.sha256(f"patient:{name}".encode()).hexdigest()[:32]
