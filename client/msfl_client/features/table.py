"""The table of features: one row for each case, as BIDS would have it. Tabs divide cells; nothing is quoted."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfl_client.data.bids import case_key
from msfl_client.data.bids_tables import with_prefix
from msfl_common.config.feature_catalogue import FEATURES, KNOWN_FEATURES, in_order
from msfl_common.errors import InputError, reason
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import TsvFile, number_of, read_tsv, tsv_text

_MISSING = "n/a"
_NOTHING = ("", _MISSING, "nan", "NaN")
_HARMONIZED, _MEASURED = "HarmonizedTo", "MeasuredFrom"
_LOG_TOLERANCE = 0.02  # of a logarithm from that of its feature, both being rounded in a table
MANUAL = "manual"
BY_MODEL = {"no": "model", "yes": "model trained on the patient", "unknown": "model perhaps trained on the patient"}
"""Who outlined lesions, by whether the model trained on the patient."""
_CASE_COLUMNS = {
    "participant_id": "Subject",
    "session_id": "Visit",
    "scanner": "Scanner of the visit",
    "dataset": "Number of the site's BIDS folder, from 0",
    "lesions": "Who outlined the lesions: manual, or a model; one that trained on the patient finds more of them than "
    "it does in others",
}


@dataclass(frozen=True)
class FeatureRow:
    """The features of one case.

    Attributes:
        participant_id: "sub-001", unique within its dataset.
        session_id: "ses-01", or None in a folder without visits.
        scanner: its name, or None when the folder does not say.
        dataset: index of the BIDS folder in the site's file.
        features: name to value, each finite; what could not be measured is not there.
        lesions: who outlined the lesions: `MANUAL` or one of `BY_MODEL`; None where nobody did, or it is not told.
    """

    participant_id: str
    session_id: str | None
    scanner: str | None
    dataset: int
    features: Mapping[str, float]
    lesions: str | None = None

    @property
    def key(self) -> str:
        """The key of the case, as `bids.Case.key` has it."""
        return case_key(self.participant_id, self.session_id, self.dataset)

    def replaced(self, features: Mapping[str, float]) -> FeatureRow:
        """The row with other values for some features."""
        return replace(self, features={**self.features, **features})


@dataclass(frozen=True)
class FeatureTable:
    """Features of several cases.

    Attributes:
        rows: one for each case.
        harmonized_to: version of the reference that they were brought to, if any.
        measured_from: digest of the images and settings that they were measured from; None for a table of one's own.
    """

    rows: tuple[FeatureRow, ...]
    harmonized_to: str | None = None
    measured_from: str | None = None


def names_of(rows: Sequence[FeatureRow], asked: Collection[str] = ()) -> list[str]:
    """Features that every table has, those that are asked for, and others that are there, as columns stand."""
    return in_order({*FEATURES, *asked, *(name for row in rows for name in row.features)})


def write_features_table(path: Path, table: FeatureTable, asked: Collection[str] = ()) -> None:
    """Write the table as tab-separated values, and beside it a JSON file that says what each column is.

    Args:
        path: the file.
        table: its content.
        asked: features that have a column even where no case has them.

    Raises:
        ValueError: a feature is unknown, or not finite.
    """
    names = names_of(table.rows, asked)
    lines: list[list[object]] = [[*_CASE_COLUMNS, *names]]
    for row in table.rows:
        bad = [name for name, value in row.features.items() if name not in KNOWN_FEATURES or not math.isfinite(value)]
        if bad:
            raise ValueError(f"{row.participant_id}: expected known, finite features, found {', '.join(bad)}")
        visit, scanner, lesions = (text or _MISSING for text in (row.session_id, row.scanner, row.lesions))
        case = [row.participant_id, visit, scanner, row.dataset, lesions]
        lines.append([*case, *(_text(row.features.get(name)) for name in names)])
    columns: dict[str, object] = {name: {"Description": description} for name, description in _CASE_COLUMNS.items()}
    for name, feature in ((name, KNOWN_FEATURES[name]) for name in names):
        columns[name] = {"Description": feature.description} | ({"Units": feature.unit} if feature.unit else {})
    if table.harmonized_to is not None:
        columns[_HARMONIZED] = table.harmonized_to
    if table.measured_from is not None:
        columns[_MEASURED] = table.measured_from
    write_json(path.with_suffix(".json"), columns)  # first: without it, a harmonized table would pass for a raw one
    write_text(path, tsv_text(lines))


def read_features_table(path: Path) -> FeatureTable:
    """Read what `write_features_table` wrote, to the last bit of every value, or a site's own table like it.

    Of a site's own, `participant_id` and one feature are needed; columns that are no feature are passed over. A value
    of a table that is not harmonized has to be one that the feature can have (`feature_catalogue`).

    Raises:
        InputError: the file is missing, or no such table, or a value cannot be; line and column are named.
    """
    sidecar = path.with_suffix(".json")
    try:
        table = read_tsv(path)
        described = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `msfl-client features` makes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{sidecar}: cannot be read: {reason(error)}") from None
    if not any(name in KNOWN_FEATURES for name in table.columns) or "participant_id" not in table.columns:
        raise InputError(f"{path}: expected tab-separated columns, participant_id and features among them")
    if twice := [name for name in table.columns if name and table.columns.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]} is there twice; remove one")
    facts = described if isinstance(described, dict) else {}
    rows = tuple(_rows(table, check=facts.get(_HARMONIZED) is None))
    return FeatureTable(rows, facts.get(_HARMONIZED), facts.get(_MEASURED))


def _rows(table: TsvFile, check: bool) -> Iterator[FeatureRow]:
    """The rows of a table, each case once; `check` refuses values that cannot be."""
    table.check_lengths()
    seen: dict[str, int] = {}
    for number, cells in table.whole_rows():
        place = f"{table.path}: line {number}"
        row = _row(cells, place)
        if row.key in seen:
            raise InputError(f"{place}: {row.key} is on line {seen[row.key]}, too; remove one")
        seen[row.key] = number
        if check and (fault := fault_of(row.features)):
            raise InputError(f"{place}, {fault}")
        yield row


def fault_of(features: Mapping[str, float]) -> str | None:
    """The first value that its feature cannot have, or that is not the logarithm it should be; None without one."""
    for name, value in features.items():
        if fault := KNOWN_FEATURES[name].fault(value):
            return f"{name}: {fault}"
        twin = features.get(KNOWN_FEATURES[name].log_of)
        if twin is not None and abs(value - math.log1p(twin)) > _LOG_TOLERANCE:
            return (
                f"{name}: expected {KNOWN_FEATURES[name].description}, here {math.log1p(twin):.4g}, found {value:.4g}"
            )
    return None


def says_of_lesions(rows: Sequence[FeatureRow]) -> Iterator[str]:
    """What a person has to know of a table's lesions: a line each."""
    patients = {who: {(row.dataset, row.participant_id) for row in rows if row.lesions == who} for who in _SAID}
    for who, what in _SAID.items():
        if number := len(patients[who]):
            yield (
                f"Lesion features of {number} patient{'s' if number > 1 else ''} come from {what}: they are better "
                "than those of other patients, and a model that learns from them expects too much. Cross-fit: "
                "`segmentation` in the study of the outcome trains models of lesions that leave patients out."
            )


_SAID = {
    BY_MODEL["yes"]: "a model that trained on them",
    BY_MODEL["unknown"]: "a model that this site's patients trained, and it is not known who",
}


def _row(line: Mapping[str, str], place: str) -> FeatureRow:
    def text(name: str) -> str | None:
        value = line.get(name, "")
        return None if value in _NOTHING else value

    features = {
        name: _number(value, f"{place}, {name}") for name in line if name in KNOWN_FEATURES and (value := text(name))
    }
    dataset, subject, visit_id = text("dataset") or "0", text("participant_id"), text("session_id")
    if subject is None:
        raise InputError(f"{place}, participant_id: expected a subject, found nothing")
    if not dataset.isdecimal():
        raise InputError(f"{place}, dataset: expected a whole number, found {dataset!r}")
    visit_id = None if visit_id is None else with_prefix("ses-", visit_id)
    return FeatureRow(with_prefix("sub-", subject), visit_id, text("scanner"), int(dataset), features, text("lesions"))


def _number(text: str, place: str) -> float:
    value = number_of(text)
    if math.isnan(value):
        fix = "; write numbers with a decimal point" if "," in text else ""
        raise InputError(f"{place}: expected a finite number or n/a, found {text!r}{fix}")
    return value


def _text(value: float | None) -> str:
    return _MISSING if value is None else repr(value)
