"""Which patients and visits of a folder a person asks for, by their BIDS ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_client.data.bids import Case
from msfl_client.data.bids_tables import alike, several, with_prefix
from msfl_common.config.spelling import no_such
from msfl_common.errors import InputError


@dataclass(frozen=True)
class Chosen:
    """Patients and visits to look at; where none are named, all of them.

    Attributes:
        subjects: "sub-001".
        visits: "ses-01"; of every patient who is looked at.
    """

    subjects: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()

    @classmethod
    def named(cls, subjects: Iterable[str], visits: Iterable[str] = ()) -> Chosen:
        """By ids as a person types them: with their prefix or without."""
        return cls(_ids("sub-", subjects), _ids("ses-", visits))

    def __bool__(self) -> bool:
        return bool(self.subjects or self.visits)

    @property
    def whole_patients(self) -> Chosen:
        """The same patients with all of their visits."""
        return Chosen(self.subjects)

    def takes(self, subject: str, visit: str | None) -> bool:
        """Whether a patient's visit is asked for."""
        return (not self.subjects or subject in self.subjects) and (not self.visits or visit in self.visits)

    def among(self, cases: Sequence[Case]) -> list[Case]:
        """Those of the cases that are asked for."""
        return [case for case in cases if self.takes(case.subject, case.visit_id)]

    def check(self, there: Iterable[tuple[str, str | None]], source: Path | str) -> None:
        """Hold the names against the patients and visits that there are.

        Args:
            there: each patient's visits; None for one without a name.
            source: where they are.

        Raises:
            InputError: there is no such patient, or no such visit of one; names the nearest.
        """
        visits: defaultdict[str, list[str]] = defaultdict(list)
        for subject, visit in there:
            visits[subject] += [visit] if visit is not None else []
        if missing := [subject for subject in self.subjects if subject not in visits]:
            raise InputError(f"{source}: {_no_such('patient', missing, sorted(visits))}")
        every = sorted({visit for of_patient in visits.values() for visit in of_patient})
        if missing := [visit for visit in self.visits if visit not in every]:
            known = _no_such("visit", missing, every) if every else "its visits have no ses- folders; leave out --visit"
            raise InputError(f"{source}: {known}")
        for subject in self.subjects:
            if self.visits and not {*self.visits} & {*visits[subject]}:
                has = several(sorted(visits[subject])) or "no named visit"
                raise InputError(f"{source}: {subject} has no {' or '.join(self.visits)}; there is {has}")


ALL = Chosen()


def _no_such(what: str, missing: Sequence[str], known: Sequence[str]) -> str:
    """Why ids are refused; where one is written otherwise in the folder (001 for 1), how."""
    as_there = {alike(name): name for name in known}
    if all(alike(name) in as_there for name in missing):
        return f"no such {what}: {', '.join(missing)}; did you mean {', '.join(as_there[alike(n)] for n in missing)}?"
    return no_such(what, missing, known)


def _ids(prefix: str, labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(with_prefix(prefix, label.strip()) for label in labels))
