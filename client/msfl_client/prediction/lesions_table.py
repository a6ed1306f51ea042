"""`lesions.tsv`: a row for each case whose files lie in the folder, of this run or an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.system.files import write_text
from msfl_common.system.tab_separated import read_tsv, tsv_text

TABLE = "lesions.tsv"
_MISSING = "n/a"


@dataclass(frozen=True)
class PredictedCase:
    """A row of `lesions.tsv`; count and volume are None for a case that could not be used.

    Attributes:
        participant_id: "sub-001".
        session_id: "ses-01", or "n/a" for a case without.
        lesion_count: 26-connected lesions of 3 mm3 or more.
        lesion_volume_ml: of the whole mask.
        status: "ok", or why the case was left out.
        warnings: those of its check and of its preprocessing.
        threshold: a voxel is lesion from this probability on; None for a case that could not be used.
    """

    participant_id: str
    session_id: str
    lesion_count: int | None
    lesion_volume_ml: float | None
    status: str
    warnings: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Whose visit it is."""
        return self.participant_id, self.session_id


def read_rows(path: Path, threshold: float) -> list[PredictedCase]:
    """The rows of an earlier run; none where there is no table.

    Args:
        path: the table.
        threshold: that of a table which does not say it, as of earlier versions.

    Raises:
        InputError: it cannot be read.
    """
    try:
        rows = read_tsv(path, ["participant_id", "session_id", "lesion_count", "lesion_volume_ml", "status"])
        return [_row(cells, threshold) for _, cells in rows.whole_rows()]
    except FileNotFoundError:
        return []
    except (InputError, ValueError) as error:
        text = f"{path}: cannot be added to ({error}); move it away, or choose another --output"
        raise InputError(text) from None


def write_rows(path: Path, earlier: Sequence[PredictedCase], rows: Sequence[PredictedCase]) -> list[PredictedCase]:
    """Write a table in which rows take the place of earlier ones of the same cases; returns all that it holds."""
    both = sorted({row.place: row for row in (*earlier, *rows)}.values(), key=lambda row: row.place)
    lines: list[list[object]] = [[field.name for field in fields(PredictedCase)]]
    for row in both:
        cells = {**asdict(row), "warnings": "; ".join(row.warnings) or None}
        lines.append([_MISSING if value is None else value for value in cells.values()])
    write_text(path, tsv_text(lines))
    return both


def _row(cells: dict[str, str], threshold: float) -> PredictedCase:
    count, volume_ml, of_row = (
        None if cells.get(name, _MISSING) == _MISSING else cells[name]
        for name in ("lesion_count", "lesion_volume_ml", "threshold")
    )
    warnings = cells.get("warnings", _MISSING)
    if count is None or volume_ml is None:
        of_row = None
    elif of_row is None:
        of_row = str(threshold)
    return PredictedCase(
        cells["participant_id"],
        cells["session_id"],
        None if count is None else int(count),
        None if volume_ml is None else float(volume_ml),
        cells["status"],
        () if warnings == _MISSING else tuple(warnings.split("; ")),
        None if of_row is None else float(of_row),
    )
