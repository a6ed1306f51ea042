"""What a site can learn an outcome from: patients' visits with a label, and why there are not more.

Legend: N cases, P inputs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from msfl_client.clinical.endpoints import Unknown
from msfl_client.clinical.follow_up import CHANGE_COLUMNS, changed, endpoint_of, is_near_relapse
from msfl_client.clinical.numbers import number_in, score_after
from msfl_client.clinical.records import Patient, read_clinical
from msfl_client.data.bids import Case, patient_key
from msfl_client.data.findings import Finding
from msfl_client.features.table import FeatureTable
from msfl_common.config.classification import Classification, DeepModel, Outcome
from msfl_common.config.regression import NumericOutcome
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError

Reason = (
    Unknown
    | Literal["fault", "visit-order", "no-images", "no-date", "no-later-visit", "no-label", "other-label", "no-input"]
    | Literal["no-score-then"]
)
REASONS: Mapping[Reason, str] = MappingProxyType(
    {
        "fault": "a fault in the patient's rows",
        "visit-order": "visits are not numbered in the order of their dates",
        "no-images": "no usable images at the visit",
        "no-date": "no date at the visit",
        "no-score": "no EDSS at the visit",
        "no-follow-up": "no later visit with the score, or none that is not near a relapse",
        "short-follow-up": "follow-up ends before the horizon",
        "unconfirmed": "worsening, but follow-up ends before it could be confirmed",
        "gap": "worsening after the horizon, and no visit around it",
        "relapse": "the visit is too near a relapse (outcome.relapse_days of the study)",
        "no-relapses": "no phenotype/relapses.tsv, so that nobody knows what is independent of relapses",
        "older-lesion": "a lesion that is new since a scan before the visit, and may be older than the visit",
        "no-score-then": "no EDSS within a tenth of the horizon, to either side",
        "no-later-visit": "no later visit to take the label from",
        "no-label": "no label",
        "other-label": "a label that is no class of the study",
        "no-input": "an input is missing",
    }
)
"""What each reason for leaving out means."""


@dataclass(frozen=True)
class SeenVisit:
    """What a model may see of a visit.

    Attributes:
        days: since the patient's day 0, or None where no table says when.
        case: its images, or None.
        clinical: the inputs of the study's clinical values that are known.
    """

    days: float | None
    case: Case | None
    clinical: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True)
class Observation:
    """A patient at an index visit, and what came of it.

    Attributes:
        key: unique within the site, and says which patient and visit; stays there.
        dataset: index of the BIDS folder.
        subject: "sub-001", unique within the folder.
        visit_id: of the index visit; None for one without, or in a folder without ses- levels.
        patient: who it is, unique within the site, as `Case.patient` has it.
        visits: up to the index visit, which is the last; oldest first.
        label: index of its class; 0 where a number is predicted.
        value: the number that is predicted; None of classes.
    """

    key: str
    dataset: int
    subject: str
    visit_id: str | None
    patient: str
    visits: tuple[SeenVisit, ...]
    label: int
    value: float | None = None

    @property
    def case(self) -> Case | None:
        """The images of the index visit."""
        return self.visits[-1].case

    @property
    def clinical(self) -> Mapping[str, float]:
        """The inputs of clinical values that are known of the index visit."""
        return self.visits[-1].clinical


@dataclass(frozen=True)
class Observations:
    """Every observation of a site.

    Attributes:
        kept: those with a label, by folder, patient and time.
        left_out: key of every patient or visit without one, with the reason.
        findings: what is wrong with the tables; stays at the site.
    """

    kept: tuple[Observation, ...]
    left_out: Mapping[str, Reason] = field(default_factory=dict, hash=False)
    findings: tuple[Finding, ...] = ()

    @property
    def counts(self) -> dict[Reason, int]:
        """How many are left out, by reason: all that may be told elsewhere."""
        counts = Counter(self.left_out.values())
        return {reason: counts[reason] for reason in REASONS if counts[reason]}

    def per_class(self, outcome: Outcome) -> dict[str, int]:
        """Observations of each class; none where a number is predicted."""
        counts = Counter(one.label for one in self.kept)
        return {name: counts[number] for number, name in enumerate(outcome.classes)}


def sees_images(classification: Classification) -> bool:
    """Whether an index visit needs images, or their features."""
    return bool(classification.features) or isinstance(classification.model, DeepModel)


def observations(
    cases: Sequence[Case], site: SiteConfig, classification: Classification, table: FeatureTable | None = None
) -> Observations:
    """The observations that a study can use.

    A column of participants.tsv labels a patient at baseline. A column of sessions.tsv is the status at its visit, and
    is predicted from the visit before. An endpoint is computed from the visits after the index visit, which is each
    patient's first that is not near a relapse, or every such one that has a label.

    Whether lesions changed is read from `new_lesions` and `enlarging_lesions` of sessions.tsv, a reader's counts since
    the scan before; where it has neither, from the table of features. Scans are the visits with images or such counts,
    and where none of a patient has images, all that have a visit_id.

    Args:
        cases: the site's usable cases, as `bids.find_cases` orders them.
        site: whose; `data`, `words` and `same_ids` are used.
        classification: the outcome, and what it is predicted from.
        table: features of the cases, if there are any; its rows count as images, too.

    Raises:
        InputError: a table cannot be read; the label column is in no table, or cannot label every visit.
    """
    outcome = classification.outcome
    rows = {(row.dataset, row.participant_id, row.session_id): row for row in (table.rows if table else ())}
    imaged = imaged_visits(cases, table)
    needed = {*classification.clinical, *(["edss"] if outcome.endpoint else [])}
    if outcome.endpoint == "activity":
        needed |= {*CHANGE_COLUMNS}
    visits = {place: list(of) for place, of in imaged.items()}
    with_relapses = outcome.endpoint is not None and (outcome.pira or outcome.relapse_days > 0)
    records = read_clinical(site, needed, outcome.column, visits, with_relapses, classification.declared)
    if outcome.column and outcome.observations == "every" and not records.label_in_sessions:
        raise InputError(
            f"outcome.observations: every visit needs an endpoint or a column of sessions.tsv; {outcome.column} is one "
            "of participants.tsv, with one label for a patient; set outcome.observations: first"
        )
    findings = [*records.findings]
    if with_relapses and not outcome.pira and any(patient.relapses is None for patient in records.patients.values()):
        findings.append(Finding("pass", None, "outcome", "no phenotype/relapses.tsv: an EDSS counts, relapse or not"))
    kept: list[Observation] = []
    left_out: dict[str, Reason] = dict.fromkeys(records.left_out, "fault")
    for place, patient in records.patients.items():
        images = imaged.get(place, {})
        changes = {visit_id: changed(rows.get((*place, visit_id))) for visit_id in images}
        if not are_in_order(patient, images):
            left_out[patient.key] = "visit-order"
            continue
        who = patient_key(place[1], place[0], site.one_person)
        more, without = _of_patient(place, who, patient, images, changes, records.label_in_sessions, classification)
        kept += more
        left_out |= without
    return Observations(tuple(kept), left_out, tuple(findings))


def imaged_visits(
    cases: Sequence[Case], table: FeatureTable | None
) -> dict[tuple[int, str], dict[str | None, Case | None]]:
    """Of each (folder, subject) the visits with images or features, in order, and their case."""
    found: defaultdict[tuple[int, str], dict[str | None, Case | None]] = defaultdict(dict)
    for case in cases:
        found[case.place][case.visit_id] = case
    for row in table.rows if table else ():
        found[row.dataset, row.participant_id].setdefault(row.session_id, None)
    return dict(found)


def with_uncounted_lesions(cases: Sequence[Case], site: SiteConfig) -> frozenset[tuple[int, str]]:
    """Where patients lie whose images have to say whether lesions changed: tables do not, of a visit but the first.

    Raises:
        InputError: a table of many patients cannot be read at all.
    """
    imaged = imaged_visits(cases, None)
    records = read_clinical(site, CHANGE_COLUMNS, None, {place: list(of) for place, of in imaged.items()})
    return frozenset(
        place
        for place, of in imaged.items()
        if place in records.patients
        and any(
            visit.imaged and visit.visit_id != next(iter(of)) and not {*CHANGE_COLUMNS} & {*visit.values}
            for visit in records.patients[place].visits
        )
    )


def are_in_order(patient: Patient, images: Collection[str | None]) -> bool:
    """Whether visits with images are named in the order of their dates."""
    in_order = [visit.visit_id for visit in patient.visits if visit.imaged]
    return in_order == [visit_id for visit_id in images if visit_id in in_order]


def observe(
    place: tuple[int, str],
    who: str,
    patient: Patient,
    index: int,
    images: Mapping[str | None, Case | None],
    classification: Classification,
    label: int,
) -> Observation:
    """A patient at a visit: what a model may see of it and of those before.

    Args:
        place: folder and subject.
        who: as `Observation.patient`.
        patient: with the visits.
        index: number of the visit.
        images: visit_id to its case.
        classification: which clinical values the model sees.
        label: index of its class; any, where it is to be predicted.
    """
    seen = tuple(
        SeenVisit(
            visit.days,
            images.get(visit.visit_id) if visit.imaged else None,
            {
                seen: value
                for name, one in classification.values.items()
                if name in visit.values
                for seen, value in one.seen(visit.values[name]).items()
            },
        )
        for visit in patient.visits[: index + 1]
    )
    return Observation(_key(patient, index), *place, patient.visits[index].visit_id, who, seen, label)


def _key(patient: Patient, index: int) -> str:
    visit = patient.visits[index]
    name = visit.visit_id or (f"day {visit.days:g}" if visit.days is not None else "")
    return f"{patient.key} {name}".strip()


def _of_patient(
    place: tuple[int, str],
    who: str,
    patient: Patient,
    images: Mapping[str | None, Case | None],
    changes: Mapping[str | None, float | None],
    label_in_sessions: bool,
    classification: Classification,
) -> tuple[list[Observation], dict[str, Reason]]:
    """A patient's observations, and why other visits are none."""
    outcome = classification.outcome
    with_images = [number for number, visit in enumerate(patient.visits) if visit.imaged]
    candidates = with_images if sees_images(classification) else list(range(len(patient.visits)))
    if outcome.column and not label_in_sessions:  # what participants.tsv says is of baseline, and of no later visit
        candidates = [number for number in candidates if number == patient.baseline]
    if not candidates:
        return [], {patient.key: "no-images"}
    kept: list[Observation] = []
    left_out: dict[str, Reason] = {}
    if outcome.endpoint is not None:
        near = [at for at in candidates if is_near_relapse(patient, at, outcome)]
        candidates = [at for at in candidates if at not in near]
        if outcome.observations == "every" or not candidates:
            left_out |= dict.fromkeys((_key(patient, at) for at in near), "relapse")
    for index in candidates[:1] if outcome.observations == "first" else candidates:
        found = _label(patient, index, changes, label_in_sessions, outcome)
        key = _key(patient, index)
        if isinstance(found, float):
            kept.append(replace(observe(place, who, patient, index, images, classification, 0), value=found))
        elif isinstance(found, int):
            kept.append(observe(place, who, patient, index, images, classification, found))
        else:
            left_out[key] = found
    return kept, left_out


def _label(
    patient: Patient,
    index: int,
    changes: Mapping[str | None, float | None],
    label_in_sessions: bool,
    outcome: Outcome,
) -> int | float | Reason:
    """Index of the class, or the number, or why there is none."""
    if isinstance(outcome, NumericOutcome) and outcome.endpoint is not None:
        return score_after(patient, index, outcome)
    if outcome.endpoint is not None:
        told = endpoint_of(patient, index, changes, outcome, outcome.endpoint)
        return int(told) if isinstance(told, bool) else told
    if not label_in_sessions:
        return _told(patient.label, outcome, patient.key)
    later = [visit for visit in patient.visits[index + 1 :] if visit.visit_id is not None]
    return _told(later[0].label, outcome, f"{patient.key} {later[0].visit_id}") if later else "no-later-visit"


def _told(text: str | None, outcome: Outcome, where: str) -> int | float | Reason:
    return number_in(text, outcome, where) if isinstance(outcome, NumericOutcome) else _class_of(text, outcome)


def _class_of(text: str | None, outcome: Outcome) -> int | Reason:
    """The class that a cell names; a whole number may be written 1.0."""
    if text is None:
        return "no-label"
    name = text.removesuffix(".0") if text not in outcome.classes else text
    return outcome.classes.index(name) if name in outcome.classes else "other-label"
