"""Age and sex of a site's cases, as harmonization needs them, and which cases it can use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msfl_client.data.bids import Case
from msfl_client.data.bids_tables import read_rows
from msfl_common.config.base import Covariate
from msfl_common.config.study import Harmonization

SEX = {"f": 0.0, "female": 0.0, "m": 1.0, "male": 1.0}
LARGEST_AGE = 120.0
ONLY_SCANNER = "the site's only scanner"

Values = Mapping[Covariate, float]


@dataclass(frozen=True)
class Selection:
    """The cases that a harmonization can use.

    Attributes:
        cases: in the order given.
        scanners: the scanner of each.
        covariates: the covariates of each.
        left_out: key of every other case, with the reason.
    """

    cases: tuple[Case, ...] = ()
    scanners: tuple[str, ...] = ()
    covariates: tuple[Values, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)

    def without(self, reasons: Mapping[str, str]) -> Selection:
        """The selection less some cases, by key."""
        kept = [number for number, case in enumerate(self.cases) if case.key not in reasons]
        return Selection(
            tuple(self.cases[number] for number in kept),
            tuple(self.scanners[number] for number in kept),
            tuple(self.covariates[number] for number in kept),
            {**self.left_out, **reasons},
        )

    def without_small_scanners(self, fewest: int) -> Selection:
        """The selection less every case of a scanner with too few of them to be harmonized."""
        counts = Counter(self.scanners)
        text = "scanner {}: {} training cases with every covariate; at least {} are needed"
        return self.without(
            {
                case.key: text.format(scanner, counts[scanner], fewest)
                for case, scanner in zip(self.cases, self.scanners, strict=True)
                if counts[scanner] < fewest
            }
        )


def select_cases(cases: Sequence[Case], roots: Sequence[Path], settings: Harmonization) -> Selection:
    """The cases with a scanner and every covariate; nothing is guessed or filled in.

    A case without a covariate is left out of sums and fits, and stays as it is. Where no case of the site names a
    scanner, the site counts as one scanner; where some do, a case that does not is left out.

    Args:
        cases: a site's cases.
        roots: its BIDS folders; `Case.dataset` is an index into them.
        settings: which covariates are needed.
    """
    anonymous = all(case.scanner is None for case in cases)
    tables = [_read_covariates(root) for root in roots]
    chosen, scanners, covariates, left_out = [], [], [], {}
    for case in cases:
        known = tables[case.dataset].of(case)
        scanner = ONLY_SCANNER if anonymous else case.scanner
        missing = [name for name in settings.covariates if name not in known]
        if scanner is None:
            left_out[case.key] = "its scanner is not known; name it in participants.tsv or sessions.tsv"
        elif missing:
            left_out[case.key] = f"no usable {' and '.join(missing)} in participants.tsv"
        else:
            chosen.append(case)
            scanners.append(scanner)
            covariates.append({name: known[name] for name in settings.covariates})
    return Selection(tuple(chosen), tuple(scanners), tuple(covariates), left_out)


@dataclass(frozen=True)
class _Table:
    subjects: Mapping[str, Values]
    sessions: Mapping[tuple[str, str], Values]

    def of(self, case: Case) -> Values:
        return {**self.subjects.get(case.subject, {}), **self.sessions.get((case.subject, case.visit_id or ""), {})}


def _read_covariates(root: Path) -> _Table:
    """Age (years) and sex of participants.tsv; a visit_id's own age, from sessions.tsv, goes before."""
    subjects = {subject: _values(row) for subject, row in read_rows(root / "participants.tsv", "sub-").items()}
    sessions: dict[tuple[str, str], Values] = {}
    for subject in subjects:
        rows = read_rows(root / subject / f"{subject}_sessions.tsv", "ses-")
        sessions |= {(subject, visit_id): _values({"age": row.get("age")}) for visit_id, row in rows.items()}
    return _Table(subjects, sessions)


def _values(row: Mapping[str, str | None]) -> Values:
    values: dict[Covariate, float] = {}
    try:
        age = float(row.get("age") or "nan")
    except ValueError:
        age = math.nan
    if 0 <= age <= LARGEST_AGE:
        values["age"] = age
    sex = SEX.get((row.get("sex") or "").strip().lower())
    if sex is not None:
        values["sex"] = sex
    return values
