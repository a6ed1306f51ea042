"""A table of studies: each with an estimate and how sure it is, in one of several spellings.

Legend: S studies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msfl_common.errors import InputError
from msfl_common.metrics.intervals import Z95, Floats
from msfl_common.system.tab_separated import TsvFile, number_of, read_tsv
from msfl_server.research.meta_analysis.risk_of_bias import Judgements, read_judgements

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "study": ("study", "article", "author", "trial", "name"),
    "estimate": ("estimate", "effect", "mean", "value", "yi", "te"),
    "standard_error": ("standard_error", "se", "std_error", "stderr", "sete"),
    "variance": ("variance", "var", "vi"),
    "ci95_low": ("ci95_low", "ci_low", "lower", "low", "ci_lower"),
    "ci95_high": ("ci95_high", "ci_high", "upper", "high", "ci_upper"),
    "sd": ("sd", "standard_deviation", "std"),
    "events": ("events", "cases", "correct"),
    "n": ("n", "total", "patients", "sample_size"),
    "events/n": ("events/n", "n/n", "events/total"),
}
_SURE = (
    "standard_error (or se), variance (or vi), ci95_low and ci95_high (or lower and upper), sd and n, events and n, or "
    "n/N"
)
_MISSING = {"", "n/a", "na", "nan", "none", "-"}
_ALIKE = 1.1  # two ways to one standard error, of rounded figures, differ by less
_LOPSIDED = 1.5
_LARGEST = 1e30  # squares of squares are finite below


@dataclass(frozen=True)
class Studies:
    """What a table has.

    Attributes:
        names: of the studies.
        effects_S: estimates, all in one unit.
        errors_S: their standard errors.
        unit: "%" where the table has percent signs, else empty.
        groups: the studies' groups by each column that was asked for.
        judgements: QUADAS-2, where the table has them.
        notes: what a reader should know of how the table was read.
    """

    names: tuple[str, ...]
    effects_S: Floats
    errors_S: Floats
    unit: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judgements: Judgements | None = None
    notes: tuple[str, ...] = ()

    def without(self, place: int) -> Studies:
        """All but one, with nothing but their estimates."""
        names = (*self.names[:place], *self.names[place + 1 :])
        return Studies(names, np.delete(self.effects_S, place), np.delete(self.errors_S, place))


@dataclass(frozen=True)
class _Row:
    path: Path
    number: int
    cells: Mapping[str, str]
    column_of: Mapping[str, str]

    def has(self, *keys: str) -> bool:
        return all(key in self.column_of and self.text(key).lower() not in _MISSING for key in keys)

    def text(self, key: str) -> str:
        return self.cells[self.column_of[key]]

    @property
    def is_percent(self) -> bool:
        """Whether the estimate has a percent sign."""
        return self.has("estimate") and self.text("estimate").endswith("%")

    def fault(self, key: str, expected: str) -> InputError:
        found = self.text(key) or "nothing"
        return InputError(
            f"{self.path}: line {self.number}, {self.column_of[key]}: expected {expected}, found {found!r}"
        )

    def number_of(self, key: str) -> float:
        text = self.text(key)
        if text.endswith("%") and key != "estimate" and (key in ("events", "n") or not self.is_percent):
            raise self.fault(
                key, "no percent sign, as the estimate has none" if key not in ("events", "n") else "a count"
            )
        value = number_of(text.removesuffix("%").strip())
        if not abs(value) < _LARGEST:
            decimal = " (a decimal point, no comma)" if "," in text else ""
            raise self.fault(key, f"a finite number{decimal}")
        return value

    def above_0(self, key: str) -> float:
        value = self.number_of(key)
        if value < 1 / _LARGEST:
            raise self.fault(key, "more than 0: a study without variance would have all the weight")
        return value


def read_studies(path: Path, subgroups: Sequence[str] = ()) -> Studies:
    """Read a tab-separated table, a row a study.

    Args:
        path: the file; columns may be spelled as in `SPELLINGS`, in any case.
        subgroups: columns whose groups are compared; without it, `subgroup` where the table has it.

    Raises:
        InputError: what cannot be used, with its line and column.
    """
    table, column_of = _open(path)
    rows = [_Row(path, number, cells, column_of) for number, cells in table.whole_rows()]
    _check_names(path, rows)
    if len(rows) < 2:
        raise InputError(f"{path}: expected two studies or more, found {len(rows)}; add a line for each study")
    told = [_estimate(row) for row in rows]
    _check_unit(path, rows, [effect for effect, _ in told])
    names = tuple(row.text("study") for row in rows)
    wanted = [name.lower() for name in subgroups] or [name for name in ("subgroup",) if name in table.columns]
    return Studies(
        names=names,
        effects_S=np.array([effect for effect, _ in told]),
        errors_S=np.array([error for _, error in told]),
        unit="%" if "estimate" in column_of and rows[0].text("estimate").endswith("%") else "",
        groups={name: _groups(table, rows, name) for name in dict.fromkeys(wanted)},
        judgements=read_judgements(path, table.columns, [(row.number, row.cells) for row in rows], names),
        notes=tuple(_lopsided(rows)),
    )


def _open(path: Path) -> tuple[TsvFile, dict[str, str]]:
    try:
        table = read_tsv(path)
        column_of = _columns(table)
        if "study" not in column_of:
            read_tsv(path, ["study"])  # says why: another separator, quotation marks
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct its name") from None
    table.check_lengths()
    keys = set(column_of)
    if "estimate" not in keys and not ({"events", "n"} <= keys or "events/n" in keys):
        raise InputError(f"{path}: line 1: no column estimate (or {', '.join(SPELLINGS['estimate'][1:])}); add it")
    sure = ({"standard_error"}, {"variance"}, {"ci95_low", "ci95_high"}, {"sd", "n"}, {"events", "n"}, {"events/n"})
    if not any(one <= keys for one in sure):
        raise InputError(f"{path}: line 1: nothing says how sure the estimates are; add {_SURE}")
    return table, column_of


def _columns(table: TsvFile) -> dict[str, str]:
    """The table's name of each column that is known."""
    found = {}
    for key, spellings in SPELLINGS.items():
        there = [name for name in spellings if name in table.columns]
        if len(there) > 1 and key != "study":
            raise InputError(
                f"{table.path}: line 1: columns {' and '.join(there)} would both be the {key}; rename or remove one"
            )
        if there:
            found[key] = there[0]
    return found


def _check_names(path: Path, rows: Iterable[_Row]) -> None:
    first: dict[str, int] = {}
    for row in rows:
        name = row.text("study")
        if name.lower() in _MISSING:
            raise row.fault("study", "the study's name")
        if name in first:
            raise InputError(
                f"{path}: line {row.number}: {name} is on line {first[name]} already; remove one, or tell them apart "
                f"as {name}a and {name}b"
            )
        first[name] = row.number


def _estimate(row: _Row) -> tuple[float, float]:
    """A study's estimate and standard error."""
    counts = _counts(row)
    if row.has("estimate"):
        effect = row.number_of("estimate")
    elif counts is not None:
        effect = counts[0] / counts[1]
    else:
        key = "estimate" if "estimate" in row.column_of else "events" if "events" in row.column_of else "events/n"
        raise row.fault(key, "a number; give it, or remove the line")
    found = _errors(row, effect)
    if not found and counts is not None:
        if counts[0] in (0, counts[1]):
            raise InputError(
                f"{row.path}: line {row.number}: a share of {effect:g} has no variance of its own; give its interval "
                "as ci95_low and ci95_high"
            )
        share = counts[0] / counts[1]
        if row.has("estimate") and not math.isclose(share, effect, rel_tol=0.02, abs_tol=0.006):
            raise row.fault("estimate", f"the share of the events, {share:.3f}")
        found = {"events": math.sqrt(share * (1 - share) / counts[1])}
    if not found:
        raise InputError(f"{row.path}: line {row.number}: nothing says how sure the estimate is; give {_SURE}")
    (first, low), (last, high) = min(found.items(), key=lambda one: one[1]), max(found.items(), key=lambda one: one[1])
    if high > _ALIKE * low:
        raise InputError(
            f"{row.path}: line {row.number}: by {first} the standard error is {low:.4g}, by {last} {high:.4g}; correct "
            "one, or leave its cell empty"
        )
    return effect, next(iter(found.values()))


def _errors(row: _Row, effect: float) -> dict[str, float]:
    """Standard errors of a row by the column that they are of, the most direct first."""
    found = {}
    if row.has("standard_error"):
        found["standard_error"] = row.above_0("standard_error")
    if row.has("variance"):
        found["variance"] = math.sqrt(row.above_0("variance"))
    if row.has("ci95_low", "ci95_high"):
        low, high = row.number_of("ci95_low"), row.number_of("ci95_high")
        if not low <= effect <= high:
            raise InputError(
                f"{row.path}: line {row.number}: the estimate {effect:g} is not within its interval, {low:g} to "
                f"{high:g}; correct one (are both in percent, or both shares?)"
            )
        if low == high:
            raise row.fault("ci95_high", f"more than {row.column_of['ci95_low']}")
        found["interval"] = (high - low) / (2 * Z95)  # Cochrane Handbook, section 6.3.1
    if row.has("sd", "n"):
        found["sd"] = row.above_0("sd") / math.sqrt(row.above_0("n"))
    return found


def _counts(row: _Row) -> tuple[float, float] | None:
    """Events and patients of a row, where it has them."""
    if row.has("events/n"):
        parts = row.text("events/n").split("/")
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            raise row.fault("events/n", "two whole numbers as 11/21")
        events, total, key = float(parts[0]), float(parts[1]), "events/n"
    elif row.has("events", "n"):
        events, total, key = row.number_of("events"), row.above_0("n"), "events"
    else:
        return None
    if not 0 <= events <= total or total < 1 or events % 1:
        raise row.fault(key, f"a whole number from 0 to {total:g}")
    return events, total


def _check_unit(path: Path, rows: Sequence[_Row], effects: Sequence[float]) -> None:
    """Refuse percent among shares: by their signs, or where shares times 100 are what the others are."""
    if "estimate" in rows[0].column_of:
        signs = [row.text("estimate").endswith("%") for row in rows]
        if any(signs) and not all(signs):
            row = rows[signs.index(not signs[0])]
            raise row.fault(
                "estimate", f"a percent sign {'too' if signs[0] else 'nowhere'}, as on line {rows[0].number}"
            )
    shares = [number for number, effect in enumerate(effects) if 0 < effect <= 1]
    percents = [number for number, effect in enumerate(effects) if 1 < effect <= 100]
    if not shares or not percents or len(shares) + len(percents) < len(effects):
        return
    of_share, of_percent = 100 * float(np.median([effects[n] for n in shares])), [effects[n] for n in percents]
    if min(of_percent) > 5 and min(of_percent) / 3 < of_share < 3 * max(of_percent):
        is_share = len(shares) <= len(percents)
        odd, other = (shares[0], percents[0]) if is_share else (percents[0], shares[0])
        raise InputError(
            f"{path}: line {rows[odd].number}: {effects[odd]:g} is a {'share' if is_share else 'percentage'}, and "
            f"{effects[other]:g} on line {rows[other].number} is not; give all as one"
        )


def _groups(table: TsvFile, rows: Sequence[_Row], column: str) -> tuple[str, ...]:
    if column not in table.columns:
        raise InputError(f"{table.path}: no column {column}, whose groups are to be compared (--subgroup)")
    for row in rows:
        if row.cells[column].lower() in _MISSING:
            raise InputError(f"{table.path}: line {row.number}, {column}: expected the study's group, found nothing")
    groups = tuple(row.cells[column] for row in rows)
    if len(set(groups)) < 2:
        raise InputError(f"{table.path}: column {column} has one group, {groups[0]}; there is none to compare it with")
    return groups


def _lopsided(rows: Iterable[_Row]) -> Iterable[str]:
    names = []
    for row in rows:
        if row.has("estimate", "ci95_low", "ci95_high"):
            below = row.number_of("estimate") - row.number_of("ci95_low")
            above = row.number_of("ci95_high") - row.number_of("estimate")
            if max(below, above) > _LOPSIDED * min(below, above):
                names.append(row.text("study"))
    if names:
        yield (
            f"The interval of {', '.join(names)} is longer to one side: its width alone is used. Ratios belong here as "
            "logarithms."
        )
