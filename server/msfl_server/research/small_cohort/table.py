"""A hospital's own table of features and labels, from one file or several that are joined by participant.

Legend: N cases, P features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfl_client.clinical.tables import CellError, Reading, parse_value, words_of
from msfl_common.config.clinical_values import CLINICAL_VALUES, MISSING, ClinicalValue
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.system.tab_separated import number_of, read_tsv

# What tells cases apart, or where they come from; never a feature.
_KEYS = ("participant_id", "session_id")
_ORIGIN = ("site", "scanner", "dataset")
Key = tuple[str, str]


@dataclass(frozen=True)
class _Table:
    """A file: its rows by participant and visit (empty without visits), each with its line number."""

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[Key, tuple[int, Mapping[str, str]]]

    def row(self, key: Key) -> tuple[int, Mapping[str, str]]:
        """The row of a case; a table without visits has one for all visits of a participant."""
        found = self.rows.get(key) or (self.rows.get((key[0], "")) if "session_id" not in self.columns else None)
        if found is None:
            raise InputError(f"{self.path}: no row for {' '.join(key).strip()}; add it, or take it out of the others")
        return found


def read_cases(
    paths: Sequence[Path],
    label: str,
    classes: Sequence[str],
    drop: Collection[str] = (),
    declared: Sequence[ClinicalValue] = (),
) -> tuple[Dataset, int]:
    """Read tab-separated tables; every column is a feature but keys, origin, the label and those dropped.

    Args:
        paths: tables with a column participant_id, and session_id where a participant has several rows; several are
            joined by these, one row for each row of the first (of the first with visits, where one has them).
        label: the column of the label.
        classes: its values, in the order of the classes; a case whose label is missing (n/a) is left out.
        drop: columns to leave out.
        declared: values of the study's own among the columns; a category is a feature for each level but the first.

    Returns:
        The cases, and how many were left out for want of a label.

    Raises:
        InputError: a file, row or value that cannot be used; file, line and column are named.
    """
    tables = [_read(path) for path in paths]
    owner = _owners(tables, label, drop)
    base = next((table for table in tables if "session_id" in table.columns), tables[0])
    columns, known = [name for name in owner if name != label], {one.name: one for one in declared}
    names = tuple(name for column in columns for name in (known[column].inputs if column in known else (column,)))
    keys, features, labels, left_out = [], [], [], 0
    for key in base.rows:
        number = _label(owner[label], key, label, classes)
        if number is None:
            left_out += 1
            continue
        rows = {id(table): table.row(key) for table in tables}
        features.append(
            [value for name in columns for value in _numbers(owner[name], rows[id(owner[name])], name, known)]
        )
        keys.append(key[0])
        labels.append(number)
    if not keys:
        raise InputError(f"{base.path}: no row has a label in {label}")
    cases = Dataset(names, np.array(features, np.float64), np.array(labels, np.int64), tuple(keys))
    _no_leak(cases, label)
    return cases, left_out


def _read(path: Path) -> _Table:
    try:
        table = read_tsv(path, ["participant_id"], any_case=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct its name") from None
    table.check_lengths()
    rows: dict[Key, tuple[int, Mapping[str, str]]] = {}
    for number, values in table.whole_rows():
        key = values["participant_id"], values.get("session_id", "")
        if not key[0]:
            raise InputError(f"{path}: line {number}: expected a participant_id")
        if key in rows:
            told = " ".join(key).strip()
            raise InputError(
                f"{path}: line {number}: {told} is on line {rows[key][0]} already; remove one, or tell them apart by "
                "a column session_id"
            )
        rows[key] = number, values
    return _Table(path, table.columns, rows)


def _owners(tables: Sequence[_Table], label: str, drop: Collection[str]) -> dict[str, _Table]:
    """The table of each feature and of the label."""
    owner: dict[str, _Table] = {}
    for table in tables:
        for name in table.columns:
            if name in (*_KEYS, *_ORIGIN, *drop):
                continue
            if name in owner:
                raise InputError(f"{table.path}: column {name} is in {owner[name].path} too; rename or remove one")
            owner[name] = table
    files = ", ".join(str(table.path) for table in tables)
    droppable = {name for table in tables for name in table.columns} - {*_KEYS, label}
    if unknown := sorted(set(drop) - droppable):
        raise InputError(f"--drop {unknown[0]}: no column of {files} that can be left out")
    if label not in owner:
        raise InputError(f"{files}: no column {label}, the outcome of study.yaml")
    if len(owner) == 1:
        raise InputError(f"{files}: no feature beside {label}; give a table with features")
    return owner


def _label(table: _Table, key: Key, column: str, classes: Sequence[str]) -> int | None:
    line, values = table.row(key)
    text = values[column]
    if text in classes:
        return list(classes).index(text)
    if text.lower() in MISSING:
        return None
    raise InputError(f"{table.path}: line {line}, {column}: expected {', '.join(classes)} or n/a, found {text!r}")


def _numbers(
    table: _Table, row: tuple[int, Mapping[str, str]], column: str, declared: Mapping[str, ClinicalValue]
) -> list[float]:
    """What a cell is to a model: one number, or one for each level of a category but the first."""
    if column not in declared:
        return [_number(table, row, column)]
    line, values = row
    value = declared[column]
    if values[column].lower() in MISSING:
        raise InputError(
            f"{table.path}: line {line}, {column}: expected {value.in_words}, found {values[column] or 'nothing'}; "
            f"give one, remove the row, or leave the column out with --drop {column}"
        )
    try:
        read = parse_value(column, values[column], Reading(declared, words_of(declared, {}), {}))
    except CellError as error:
        raise InputError(f"{table.path}: line {line}, {column}: {error}") from None
    return [*value.seen(read).values()]


def _number(table: _Table, row: tuple[int, Mapping[str, str]], column: str) -> float:
    line, values = row
    value = number_of(values[column])
    if math.isnan(value):
        found = values[column] or "nothing"
        raise InputError(
            f"{table.path}: line {line}, {column}: expected a finite number, found {found!r}; give one, remove the "
            f"row, or leave the column out with --drop {column}"
        )
    return value


def _no_leak(cases: Dataset, label: str) -> None:
    """Refuse a feature that is the label under another name: one value for each class, and no two classes alike."""
    for name, values_N in zip(cases.names, cases.features_NP.T, strict=True):
        pairs = set(zip(values_N.tolist(), cases.labels_N.tolist(), strict=True))
        classes = len(np.unique(cases.labels_N))
        if classes > 1 and len(pairs) == classes == len(np.unique(values_N)):
            raise InputError(f"{name}: tells {label} of every case; leave it out with --drop {name}")


def constant_features(cases: Dataset) -> list[str]:
    """Features with one value in every case.

    Raises:
        InputError: all of them are.
    """
    same_P = (cases.features_NP == cases.features_NP[:1]).all(axis=0)
    if same_P.all():
        raise InputError(
            f"{cases.names[0]} and all other features are the same in every case, so that nothing can be told by them; "
            "give a table with values of each case"
        )
    return [name for name, same in zip(cases.names, same_P, strict=True) if same]


def row_groups(
    names: Sequence[str], group_by: str | None, declared: Sequence[ClinicalValue] = ()
) -> tuple[str | None, ...] | None:
    """The group of each feature that a case is scaled within: its name up to the first `group_by`.

    Clinical values, as a study names them, are in none: years and points have no common scale with what was measured
    in images, here as in a federation. None where all features are one group.

    Raises:
        InputError: no name has the text, or it is empty.
    """
    if group_by == "":
        raise InputError("--group-by: expected a text that stands in the features' names, found nothing; leave it out")
    if group_by and not any(group_by in name for name in names):
        raise InputError(f"--group-by {group_by}: no feature has it in its name, such as {names[0]}")
    clinical = {*CLINICAL_VALUES, *(name for one in declared for name in one.inputs)}
    if not group_by and not clinical & {*names}:
        return None
    return tuple(None if name in clinical else name.split(group_by, 1)[0] if group_by else "" for name in names)


def alone_in_groups(names: Sequence[str], groups: Sequence[str | None] | None) -> list[str]:
    """The features that no other shares a group with: scaled within it, each is 0 in every case."""
    sizes = Counter(groups or ())
    return [name for name, group in zip(names, groups or (), strict=False) if group is not None and sizes[group] == 1]
