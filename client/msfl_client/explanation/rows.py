"""`relevance.tsv`: a row for each visit and method whose maps lie in the folder, of this run or an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msfl_client.explanation.deletion import SHARES, Deletion
from msfl_client.explanation.methods import METHODS
from msfl_client.explanation.score import Relevance
from msfl_common.errors import InputError
from msfl_common.models.model_card import NOTICE
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import read_tsv, tsv_text

TABLE = "relevance.tsv"
LEFT_OUT = "left out: "
_MISSING = "n/a"
_INEXACT = 0.1
_PLAIN = (
    *("participant_id", "session_id", "method", "explained", "score", "expected_sum", "relevance_sum", "in_lesions"),
    *("status", "warnings"),
)
_SHARES = ", ".join(f"{100 * share:g}%" for share in SHARES)

COLUMNS: Mapping[str, str] = {
    "participant_id": "Subject",
    "session_id": "Session that is explained",
    "method": "How relevance was found",
    "explained": "What the score says of the patient",
    "score": "Log odds, of the model without mirroring",
    "expected_sum": "What all voxels together should add up to, log odds; of layerwise-relevance, biases have the rest",
    "relevance_sum": "What they do add up to, log odds",
    "in_lesions": "Share of what speaks for the lesions that lies within them, where lesions are explained",
    "deletion_by_map": f"The score when {_SHARES} of the brain are blurred away, most relevant voxels first",
    "deletion_at_random": "The same in random orders of voxels, their mean",
    "deletion_gain": "Mean of deletion_at_random less mean of deletion_by_map, log odds: above 0 the map names voxels "
    "that the model goes by, at 0 or below it is no better than chance",
    "status": "ok, or why there is no map",
    "warnings": "What to know before a map is read",
}


@dataclass(frozen=True)
class ExplainedVisit:
    """A visit, and what its maps are worth; figures are None where there are none.

    Attributes:
        participant_id: "sub-001".
        session_id: "ses-01", or None for a visit without.
        method: of `METHODS`.
        explained: what the score says, for people.
        score: log odds.
        relevance_sum: of all voxels, log odds.
        expected_sum: what that should be.
        in_lesions: share of what speaks for lesions that lies within them; None where none are explained.
        deletion: the check of the maps.
        status: "ok", or why there is no map.
        warnings: what deserves a look.
    """

    participant_id: str
    session_id: str | None
    method: str
    explained: str = ""
    score: float | None = None
    relevance_sum: float | None = None
    expected_sum: float | None = None
    in_lesions: float | None = None
    deletion: Deletion | None = None
    status: str = "ok"
    warnings: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, str, str]:
        """Whose visit it is, and by which method."""
        return self.participant_id, self.session_id or _MISSING, self.method

    def cells(self) -> dict[str, str]:
        """As the table has it."""
        checked = self.deletion
        return {
            "participant_id": self.participant_id,
            "session_id": self.session_id or _MISSING,
            "method": self.method,
            "explained": self.explained or _MISSING,
            "score": _figure(self.score),
            "expected_sum": _figure(self.expected_sum),
            "relevance_sum": _figure(self.relevance_sum),
            "in_lesions": _figure(self.in_lesions),
            "deletion_by_map": _figures(checked.by_map if checked else None),
            "deletion_at_random": _figures(checked.at_random if checked else None),
            "deletion_gain": _figure(checked.gain if checked else None),
            "status": " ".join(self.status.split()),
            "warnings": " ".join("; ".join(self.warnings).split()) or _MISSING,
        }


def document_of(row: ExplainedVisit) -> dict[str, Any]:
    """A row for `--json`."""
    checked = row.deletion
    return {
        **{name: getattr(row, name) for name in _PLAIN},
        "deletion": checked and {"shares": SHARES, **asdict(checked), "gain": checked.gain},
    }


def doubts(method: str, relevance: Relevance, checked: Deletion) -> tuple[str, ...]:
    """What to know before a map is read."""
    found = []
    if checked.gain <= 0:
        found.append(
            f"blurring what the map names first lowers the score no more than chance (deletion gain "
            f"{checked.gain:.2f}): it does not show what the model goes by"
        )
    is_exact = not METHODS[method].has_biases
    if is_exact and abs(relevance.total - relevance.explains) > _INEXACT * abs(relevance.explains):
        found.append(f"the map adds up to {relevance.total:.2f}, not {relevance.explains:.2f} log odds")
    return tuple(found)


def write_table(output: Path, rows: Sequence[ExplainedVisit], origin: str) -> list[dict[str, str]]:
    """Write `relevance.tsv` and what its columns mean; rows of an earlier run stay where they are of others.

    Returns:
        All rows that it holds.

    Raises:
        InputError: an earlier table cannot be read.
    """
    path, ours = output / TABLE, {row.place for row in rows}
    earlier = [row for row in _read(path) if (row["participant_id"], row["session_id"], row["method"]) not in ours]
    both = sorted([*earlier, *(row.cells() for row in rows)], key=lambda row: [row[name] for name in list(COLUMNS)[:3]])
    described = {name: {"Description": text} for name, text in COLUMNS.items()}
    write_json(path.with_suffix(".json"), {"Notice": NOTICE, "ModelOrigin": origin, **described})
    write_text(path, tsv_text([list(COLUMNS), *([row[name] for name in COLUMNS] for row in both)]))
    return both


def _read(path: Path) -> list[dict[str, str]]:
    try:
        return [row for _, row in read_tsv(path, list(COLUMNS)).whole_rows()]
    except FileNotFoundError:
        return []
    except InputError as error:
        text = f"{path}: cannot be added to ({error}); move it away, or choose another --output"
        raise InputError(text) from None


def _figure(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.4f}"


def _figures(values: Sequence[float] | None) -> str:
    return _MISSING if values is None else " ".join(f"{value:.4f}" for value in values)
