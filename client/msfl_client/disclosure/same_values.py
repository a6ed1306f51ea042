"""Cases and inputs under the names that a budget knows them by: who they are shows in their values, not in names.

A subject folder or a column that was renamed, or another order of the site's `data` folders, gives the same patients
other keys. Counted as others, they would have a fresh budget. So a case of another key is known again by its values,
and an input of another name by the values of cases that are known. Of two whose values are all alike, either may stand
for the other: no sum tells them apart. A value in another unit is another value.

Legend: keys of cases, names of inputs; digests of values, see `About.values`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from msfl_client.trainer import About

_ALIKE = 0.9  # share of values that two columns must have in common
_TELLING = 3  # values that a column has at the least, to be known by them alone: not two of yes and no

Values = Mapping[str, str]  # name of an input to the digest of a case's value


def as_known(about: About, earlier: Collection[About], present: Collection[About] = ()) -> About:
    """The same cases, under the names of earlier answers where they are those.

    Args:
        about: the cases, as they are called now.
        earlier: those of the answers so far.
        present: all cases of the site: who is there under his own name, with his values, is nobody else.
    """
    if not (earlier and about.keys and about.inputs):
        return about
    known = _known(earlier)
    inputs = _inputs_as_known(about, known)
    here = {key for one in (*present, about) for key, values in _rows(one, known) if _is_that(key, values, known)}
    called = _keys_as_known(dict(_rows(about, known)), known, here)
    patient_of = {key: patient for one in earlier for key, patient in zip(one.keys, one.patients, strict=True)}
    whose = {
        patient: patient_of[called[key]]
        for key, patient in zip(about.keys, about.patients, strict=True)
        if called[key] != key and called[key] in patient_of
    }
    keys = tuple(called[key] for key in about.keys)
    return replace(about, keys=keys, patients=tuple(whose.get(one, one) for one in about.patients), inputs=inputs)


def people_as_known(
    cases: Collection[About], earlier: Collection[About], present: Collection[About] = ()
) -> tuple[tuple[About, ...], frozenset[frozenset[str]]]:
    """Sets of cases of the same patients, by images for one and by values, and all names that each patient has in them.

    Args:
        cases: the sets, as they are called now.
        earlier: those of the answers so far.
        present: all cases of the site; see `as_known`.
    """
    found = tuple(as_known(one, earlier, present) for one in cases)
    names: dict[str, set[str]] = defaultdict(set)
    for one, known in zip(cases, found, strict=True):
        for name, of in zip(one.patients, known.patients, strict=True):
            names[name].add(of)
    return found, frozenset(map(frozenset, names.values()))


def _rows(about: About, known: Mapping[str, Values]) -> Iterator[tuple[str, Values]]:
    inputs = _inputs_as_known(about, known)
    return ((key, dict(zip(inputs, of, strict=True))) for key, of in zip(about.keys, about.values, strict=True))


def _known(earlier: Iterable[About]) -> dict[str, dict[str, str]]:
    """By key of a case, the values that it had last; a survey, which is of no inputs, tells none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for one in earlier:
        if not one.inputs:
            continue
        for key, of in zip(one.keys, one.values, strict=True):
            found[key].update(zip(one.inputs, of, strict=True))
    return dict(found)


def _is_that(key: str, values: Values, known: Mapping[str, Values]) -> bool:
    """Whether a case has all values that the one of its name had, as far as both are known."""
    return key in known and all(known[key].get(name, of) == of for name, of in values.items())


def _inputs_as_known(about: About, known: Mapping[str, Values]) -> tuple[str, ...]:
    """Names of the inputs; a new one whose values are those of a known one that is not there has that one's."""
    names = {name for values in known.values() for name in values}
    free, found = names - set(about.inputs), list(about.inputs)
    for place, name in enumerate(about.inputs):
        if name in names:
            continue
        column = [of[place] for of in about.values]
        alike = {other: _in_common(about.keys, column, other, known) for other in sorted(free)}
        best = max(alike, key=lambda other: alike[other], default=None)
        if best is not None and alike[best] >= _ALIKE:
            found[place] = best
            free.remove(best)
    return tuple(found)


def _in_common(keys: Collection[str], column: Collection[str], name: str, known: Mapping[str, Values]) -> float:
    """Share of a column's values that a known input has: of the same cases or, if they have other names, of all."""
    pairs = [
        (of, known[key][name]) for key, of in zip(keys, column, strict=True) if key in known and name in known[key]
    ]
    same = sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0
    if same >= _ALIKE and 2 * len(pairs) >= len(keys):
        return same
    there = Counter(values[name] for values in known.values() if name in values)
    if len(there) < _TELLING:
        return 0.0
    of_any = Counter(column)
    return (of_any & there).total() / max(min(of_any.total(), there.total()), 1)


def _keys_as_known(rows: Mapping[str, Values], known: Mapping[str, Values], here: Collection[str]) -> dict[str, str]:
    """For each case the key that it is known by: its own with its values, another's with them, or its own."""
    called, inputs = {key: key for key in rows if key in here}, next(iter(rows.values())).keys()
    by_values: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    shared = {frozenset(inputs & values.keys()) for key, values in known.items() if key not in here}
    for key, values in known.items():
        if key not in here and (names := inputs & values.keys()):
            by_values[_picked(values, names)].append(key)
    for key, values in rows.items():
        if key not in called:
            lists = (by_values[_picked(values, names)] for names in sorted(shared, key=len, reverse=True) if names)
            if (found := next((one for one in lists if one), None)) is not None:
                called[key] = found.pop(0)
    taken = set(called.values())
    for key in rows.keys() - called.keys():
        called[key] = key
        while called[key] in taken:  # somebody else is known by this name
            called[key] += "'"
        taken.add(called[key])
    return called


def _picked(values: Values, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, values[name]) for name in sorted(names))
