"""Sums of nearly the same patients: their difference is of those few who came, went, or were corrected.

What a site's sums are of in one study may differ from another's by the patients of a floor or by none: over all cases,
in each class, and in whatever the sums of several studies can be put together to. Of metrics, which are means over
patients, no set may be another's and few more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from msfl_client.trainer import About
from msfl_common.errors import Code, RefusedError

_ROUNDING = 1e-9
# Kinds that can be taken off each other. A harmonization's sums are of features as they are in the site's table; what a
# model sees of them afterwards only the site knows.
_OF_ONE_MEASURE = (frozenset({"sums", "harmonized"}), frozenset({"sums", "harmonization"}), frozenset({"metrics"}))


def expect_apart(about: About, earlier: Sequence[tuple[str, About]], floor: int) -> None:
    """Refuse cases that are nearly those of earlier answers.

    Args:
        about: the cases.
        earlier: study and cases of each answer before.
        floor: fewest patients.

    Raises:
        RefusedError: with the code BUDGET_SPENT.
    """
    for kinds in _OF_ONE_MEASURE:
        if about.kind in kinds:
            _expect_apart(about, [(study, other) for study, other in earlier if other.kind in kinds], floor)


def _expect_apart(about: About, earlier: Sequence[tuple[str, About]], floor: int) -> None:
    alike = [(study, other) for study, other in earlier if _shared(about, other)]
    whose = {key: who for one in (about, *(other for _, other in alike)) for key, who in _whose(one)}
    for study, other in alike:
        for keys in _differences(about, other):
            patients = {whose[key] for key in keys}
            if 0 < len(patients) < floor:
                number = f"{len(patients)} patient{'s' * (len(patients) != 1)}"
                raise _too_alike(f"they differ from those of study {study} by {number}", floor)
    if alike and about.kind != "metrics" and (few := _solved(about, [other for _, other in alike], whose, floor)):
        studies = ", ".join(sorted({study for study, _ in alike}))
        raise _too_alike(f"with those of {studies} together they would be of {few} by themselves", floor)


def _too_alike(how: str, floor: int) -> RefusedError:
    detail = (
        f"answers about nearly the same patients: {how}, at least {floor} are needed, or none. Put the data back as "
        "they were for that study, or agree with the coordinator on another `seed`, which splits patients otherwise"
    )
    return RefusedError(Code.BUDGET_SPENT, detail)


def _shared(one: About, other: About) -> list[tuple[int, int]]:
    """Columns of the inputs that both have."""
    return [(number, other.inputs.index(name)) for number, name in enumerate(one.inputs) if name in other.inputs]


def _whose(about: About) -> Iterator[tuple[str, str]]:
    return zip(about.keys, about.patients, strict=True)


def _groups(about: About) -> list[frozenset[str]]:
    """All cases, and those of each class."""
    groups = [
        frozenset(key for key, of in zip(about.keys, about.classes, strict=True) if of == label)
        for label in sorted(set(about.classes))
    ]
    return [frozenset(about.keys), *groups] if len(groups) > 1 else groups


def _differences(about: About, other: About) -> Iterator[Collection[str]]:
    """Cases by which a group of one differs from one of the other, for each input."""
    if about.kind == "metrics":
        one, two = set(about.keys), set(other.keys)
        if one <= two or two <= one:
            yield one ^ two
        return
    rows, changes = {key: row for row, key in enumerate(other.keys)}, set()
    both = [(number, rows[key], key) for number, key in enumerate(about.keys) if key in rows]
    for column, like in _shared(about, other):
        changes.add(frozenset(key for row, at, key in both if about.values[row][column] != other.values[at][like]))
    for changed in changes:
        for one_group in _groups(about):
            for other_group in _groups(other):
                yield (one_group ^ other_group) | (one_group & other_group & changed)


def _solved(about: About, others: Sequence[About], whose: dict[str, str], floor: int) -> str:
    """The few patients whose own sums follow from all sums together, in words; empty where there are none.

    Those whom no set tells apart are an atom; sums of an atom follow where it is a combination of the sets.
    """
    sets = [group for one in (about, *others) for group in _groups(one)]
    signs: dict[tuple[bool, ...], set[str]] = {}
    for key in sorted(set().union(*sets)):
        signs.setdefault(tuple(key in group for group in sets), set()).add(whose[key])
    few = [number for number, patients in enumerate(signs.values()) if len(patients) < floor]
    if not few:
        return ""
    of_set_SA = np.array(list(signs), dtype=np.float64).T
    told_A = np.einsum("as,sa->a", np.linalg.pinv(of_set_SA), of_set_SA)
    found = [len(list(signs.values())[number]) for number in few if told_A[number] > 1 - _ROUNDING]
    return f"{min(found)} patient{'s' * (min(found) != 1)}" if found else ""
