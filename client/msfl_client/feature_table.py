"""The table of features: one row for each case, as BIDS would have it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.features import FEATURES
from msfl_common.files import write_json, write_text

_MISSING = "n/a"
_CASE_COLUMNS = {
    "participant_id": "Subject",
    "session_id": "Session",
    "scanner": "Scanner of the session",
    "dataset": "Number of the site's BIDS folder, from 0",
}


@dataclass(frozen=True)
class FeatureRow:
    """The features of one case.

    Attributes:
        participant_id: "sub-001", unique within its dataset.
        session_id: "ses-01", or None in a folder without sessions.
        scanner: its name, or None when the folder does not say.
        dataset: index of the BIDS folder in the site's file.
        features: name to value, each finite; what could not be measured is not there.
    """

    participant_id: str
    session_id: str | None
    scanner: str | None
    dataset: int
    features: Mapping[str, float]


def write_features_table(path: Path, rows: Sequence[FeatureRow]) -> None:
    """Write the rows as tab-separated values, and beside them a JSON file that says what each column is.

    Raises:
        ValueError: a feature is unknown, or not finite.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow([*_CASE_COLUMNS, *FEATURES])
    for row in rows:
        bad = [name for name, value in row.features.items() if name not in FEATURES or not math.isfinite(value)]
        if bad:
            raise ValueError(f"{row.participant_id}: expected known, finite features, found {', '.join(bad)}")
        case = [row.participant_id, row.session_id or _MISSING, row.scanner or _MISSING, row.dataset]
        writer.writerow([*case, *(_text(row.features.get(name)) for name in FEATURES)])
    write_text(path, stream.getvalue())
    columns = {name: {"Description": description} for name, description in _CASE_COLUMNS.items()}
    for name, feature in FEATURES.items():
        columns[name] = {"Description": feature.description} | ({"Units": feature.unit} if feature.unit else {})
    write_json(path.with_suffix(".json"), columns)


def read_features_table(path: Path) -> list[FeatureRow]:
    """Read what `write_features_table` wrote, to the last bit of every value.

    Raises:
        InputError: the file is missing, or was not written by this version.
    """
    again = "run `msfl-client features` to make it"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            rows = list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {again}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}; {again}") from None
    if reader.fieldnames is None or list(reader.fieldnames) != [*_CASE_COLUMNS, *FEATURES]:
        raise InputError(f"{path}: its columns are not this version's; {again} anew")
    try:
        return [_row(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected numbers or n/a: {error}; {again} anew") from None


def _row(row: Mapping[str, str]) -> FeatureRow:
    features = {name: float(row[name]) for name in FEATURES if row[name] != _MISSING}
    if bad := [name for name, value in features.items() if not math.isfinite(value)]:
        raise ValueError(f"{row['participant_id']}: {', '.join(bad)} not finite")
    session, scanner = (None if row[name] == _MISSING else row[name] for name in ("session_id", "scanner"))
    return FeatureRow(row["participant_id"], session, scanner, int(row["dataset"]), features)


def _text(value: float | None) -> str:
    return _MISSING if value is None else repr(value)
