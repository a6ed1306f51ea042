"""Which cases of a site a harmonization can use, with their scanner, age and sex.

A scanner is fitted to patients, not to visits: of a patient's visits on a scanner the first that can be used stands for
the patient, in the sums and in the scanner's fit. With all of them, whoever comes often would weigh more than others,
and what is peculiar to him, his disease too, would be taken for the scanner's. Every visit is harmonized.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msfl_client.clinical.records import ClinicalRecords, read_clinical
from msfl_client.data.bids import Case, case_key
from msfl_client.data.bids_tables import several
from msfl_common.config.harmonization import KEPT
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Harmonization

ONLY_SCANNER = "the site's only scanner"
NO_DAY = "its day is in no table, though that of another visit of the patient is; add it to sessions.tsv"
NO_AGE_LATER = (
    "participants.tsv has the age at the first visit; add this one's age, or each visit's day, to sessions.tsv"
)

Values = Mapping[str, float]


@dataclass(frozen=True)
class Selection:
    """The cases that a harmonization can use.

    Attributes:
        cases: in the order given.
        scanners: the scanner of each.
        covariates: the covariates of each, at the time of the visit.
        days: of each since the patient's day 0; None where no table says when.
        left_out: key of every other case, with the reason.
    """

    cases: tuple[Case, ...] = ()
    scanners: tuple[str, ...] = ()
    covariates: tuple[Values, ...] = ()
    days: tuple[float | None, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def patients(self) -> Counter[str]:
        """How many patients each scanner has."""
        pairs = {(scanner, case.patient) for scanner, case in zip(self.scanners, self.cases, strict=True)}
        return Counter(scanner for scanner, _ in pairs)

    def without(self, reasons: Mapping[str, str]) -> Selection:
        """The selection less some cases, by key."""
        kept = [number for number, case in enumerate(self.cases) if case.key not in reasons]
        return self._take(kept, {**self.left_out, **reasons})

    def without_small_scanners(self, fewest: int) -> Selection:
        """The selection less every case of a scanner with too few patients to be harmonized."""
        patients, visits = self.patients, Counter(self.scanners)
        why = {}
        for case, scanner in zip(self.cases, self.scanners, strict=True):
            if (number := patients[scanner]) < fewest:
                found = (
                    f"{number} training patient{'s' * (number != 1)} ({visits[scanner]} visits) with every covariate"
                )
                why[case.key] = f"scanner {scanner}: {found}; at least {fewest} patients are needed"
        return self.without(why)

    def first_visits(self) -> Selection:
        """Of each patient on each scanner the first visit: by day, else by the name of the visit."""
        first: dict[tuple[str, str], tuple[float, str, int]] = {}
        for number, (case, scanner, days) in enumerate(zip(self.cases, self.scanners, self.days, strict=True)):
            place = (math.inf if days is None else days, case.visit_id or "", number)
            first[scanner, case.patient] = min(place, first.get((scanner, case.patient), place))
        return self._take(sorted(number for _, _, number in first.values()), self.left_out)

    def _take(self, kept: Iterable[int], left_out: Mapping[str, str]) -> Selection:
        kept = list(kept)
        return Selection(
            tuple(self.cases[number] for number in kept),
            tuple(self.scanners[number] for number in kept),
            tuple(self.covariates[number] for number in kept),
            tuple(self.days[number] for number in kept),
            left_out,
        )


def select_cases(cases: Sequence[Case], site: SiteConfig, settings: Harmonization) -> Selection:
    """The cases with a scanner and every covariate; nothing is guessed or filled in.

    A case without a covariate is left out of sums and fits, and stays as it is. Age is that at the visit: from
    sessions.tsv or phenotype/, or that of participants.tsv and the days since (`clinical.records`). Where no case of
    the site names a scanner, the site counts as one scanner; where some do, a case that does not is left out.

    Args:
        cases: a site's cases.
        site: the site; its BIDS folders, and the words of its tables, are used.
        settings: which covariates are needed.

    Raises:
        InputError: a table cannot be read at all.
    """
    anonymous = all(case.scanner is None for case in cases)
    visits: defaultdict[tuple[int, str], list[str | None]] = defaultdict(list)
    for case in cases:
        visits[case.place].append(case.visit_id)
    records = read_clinical(site, settings.covariates, imaged=visits, declared=settings.declared)
    chosen, scanners, covariates, days, left_out = [], [], [], [], {}
    for case in cases:
        scanner = ONLY_SCANNER if anonymous else case.scanner
        found = _covariates(case, records, settings)
        if isinstance(found, str):
            left_out[case.key] = found
        elif scanner is None:
            left_out[case.key] = "its scanner is not known; name it in participants.tsv or sessions.tsv"
        else:
            chosen.append(case)
            scanners.append(scanner)
            covariates.append(found[0])
            days.append(found[1])
    return Selection(tuple(chosen), tuple(scanners), tuple(covariates), tuple(days), left_out)


def why_left_out(left_out: Mapping[str, str]) -> list[str]:
    """Each reason once, with the number of cases that it is of and the first of them."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for key, reason in left_out.items():
        keys[reason].append(key)
    return [f"{len(of)} ({several(of)}): {reason}" for reason, of in keys.items()]


def _covariates(
    case: Case, records: ClinicalRecords, settings: Harmonization
) -> tuple[dict[str, float], float | None] | str:
    """A case's covariates and its day; or why they are not all known."""
    patient = records.patients.get(case.place)
    if patient is None:
        return records.left_out.get(case_key(case.subject, None, case.dataset), "no row of the patient in any table")
    visit = next((one for one in patient.visits if one.visit_id == case.visit_id), None)
    at_baseline = patient.visits[patient.baseline].values
    known = visit.values if visit is not None else {"sex": at_baseline["sex"]} if "sex" in at_baseline else {}
    missing = [name for name in settings.covariates if name not in known]
    if missing == ["age"] and "age" in at_baseline:
        return NO_DAY if visit is None else NO_AGE_LATER
    if missing:
        tables = "the tables" if {*missing} - {*KEPT} else "participants.tsv"
        return f"no usable {' and '.join(missing)} in {tables}"
    return {name: known[name] for name in settings.covariates}, visit.days if visit is not None else None
