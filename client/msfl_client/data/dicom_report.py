"""What became of each series of an import: for the screen, for programs, and kept in `sourcedata/series.tsv`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from msfl_client.data.dicom_people import write_private_table
from msfl_common.config.contrasts import CONTRASTS, in_words
from msfl_common.errors import InputError
from msfl_common.system.foreign_text import harmless
from msfl_common.system.tab_separated import read_tsv

SERIES = Path("sourcedata", "series.tsv")
_COLUMNS = (
    "participant_id", "session_id", "series", "description", "protocol", "outcome", "taken_for", "why", "file", "uid",
    "part",
)  # fmt: skip

Outcome = Literal["imported", "there already", "passed over", "in question", "refused"]


@dataclass(frozen=True)
class SeriesReport:
    """What became of a series, or of a part of one.

    Attributes:
        subject, visit: whose it is; empty where none of its study was wanted.
        number: SeriesNumber.
        description, protocol: what people called it.
        outcome: `in question` is for a person to say, `refused` cannot be right as it is.
        taken_for: the contrast, with ` with agent`; empty where it was taken for none.
        why: in words.
        file: in the BIDS folder; empty where there is none.
        key: the series' SeriesInstanceUID and the number of its part.
    """

    subject: str
    visit: str
    number: str
    description: str
    protocol: str
    outcome: Outcome
    taken_for: str
    why: str
    file: str = ""
    key: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        series: what became of each.
        damaged: DICOM files that were left out because they are damaged.
        notes: what a person may want to look at.
    """

    series: Sequence[SeriesReport]
    damaged: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def images(self) -> list[tuple[str, str, str]]:
        """New images as (subject, visit, contrast)."""
        return sorted((one.subject, one.visit, one.taken_for.split()[0]) for one in self.of("imported"))

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left for a person to say or to export again."""
        return not (self.damaged or self.of("in question") or self.of("refused"))

    def of(self, outcome: Outcome) -> list[SeriesReport]:
        """The series with an outcome."""
        return [one for one in self.series if one.outcome == outcome]


def read_series(bids: Path) -> dict[tuple[str, str], SeriesReport]:
    """What earlier imports did, by series and part.

    Raises:
        InputError: the table is damaged.
    """
    try:
        table = read_tsv(bids / SERIES, any_case=False)
        table.check_lengths()
    except FileNotFoundError:
        return {}
    except InputError as error:
        raise InputError(f"{error}, or restore it from a backup") from None
    if table.columns != _COLUMNS:
        raise InputError(f"{table.path}: expected the columns {', '.join(_COLUMNS)}; restore it, or move it away")
    return {(row[9], row[10]): _report_of(row) for row in (line.cells for line in table.lines)}


def write_series(bids: Path, past: dict[tuple[str, str], SeriesReport], done: Sequence[SeriesReport]) -> None:
    """Keep what became of each series, those of earlier imports among them."""
    merged = past | {one.key: one for one in done}
    rows = [
        (one.subject, one.visit, one.number, _inert(one.description), _inert(one.protocol), one.outcome, one.taken_for,
         _inert(one.why), one.file, *one.key)
        for one in merged.values()
    ]  # fmt: skip
    write_private_table(bids / SERIES, _COLUMNS, sorted(rows))


def _inert(text: str) -> str:
    """What whoever named a series wrote, so that neither a terminal nor a spreadsheet does what it says."""
    return harmless(f"'{text}" if text.startswith(("=", "+", "-", "@")) else text)


def _report_of(row: Sequence[str]) -> SeriesReport:
    subject, visit, number, description, protocol, outcome, taken_for, why, file, *key = row
    if outcome not in get_args(Outcome):
        outcome = "passed over"
    return SeriesReport(
        subject, visit, number, description, protocol, cast(Outcome, outcome), taken_for, why, file, (key[0], key[1])
    )


def nothing_found(source: Path, report: ImportReport) -> str:
    """Why an import brought nothing, for an error's one line."""
    wanted = in_words(name for name, facts in CONTRASTS.items() if facts.series)
    counts = ((len(report.of(outcome)), outcome) for outcome in ("refused", "in question", "passed over"))
    found = ", ".join(f"{count} series {outcome}" for count, outcome in counts if count)
    return f"{source}: no {wanted} series of a head that can be used; found: {found or 'no DICOM image'}"
