"""Which visits a classification can predict from: like those that it learns from, but without an outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msfl_client.clinical.observations import REASONS, Observation, are_in_order, imaged_visits, observe, sees_images
from msfl_client.clinical.records import read_clinical
from msfl_client.prediction.inputs import KnownInputs
from msfl_common.config.classification import Classification
from msfl_common.errors import CohortError, InputError

_NO_LABEL = 0  # nothing is known of what comes after


@dataclass(frozen=True)
class PatientVisits:
    """A patient to predict.

    Attributes:
        subject: "sub-001".
        visits: the patient at each visit, in order of time; where the model sees images, without those that are no
            visit_id, if there are ses- folders. None where the patient cannot be used.
        reason: why not; empty otherwise.
    """

    subject: str
    visits: tuple[Observation, ...]
    reason: str = ""


def patients_to_predict(known: KnownInputs, settings: Classification) -> list[PatientVisits]:
    """Every patient of the tables and image folders, with all visits.

    Raises:
        InputError: a table cannot be read, or none has a column that the study of the model declares.
        CohortError: there is no patient.
    """
    imaged = imaged_visits(known.cases, known.table)
    folders = {(0, subject): list(imaged.get((0, subject), ())) for subject in known.subjects}
    sessions: Mapping[tuple[int, str], list[str | None]] = {place: list(of) for place, of in imaged.items()} | folders
    records = read_clinical(known.site, settings.clinical, None, sessions, declared=settings.declared)
    if lacking := [
        finding.text for finding in records.findings if finding.level == "fail" and finding.rule == "tables"
    ]:
        raise InputError(lacking[0])  # nobody has all that the model sees
    found = [PatientVisits(subject, (), reason) for subject, reason in records.left_out.items()]
    for place, patient in records.patients.items():
        images = imaged.get(place, {})
        if not are_in_order(patient, images):
            found.append(PatientVisits(place[1], (), REASONS["visit-order"]))
            continue
        numbers: Sequence[int] = range(len(patient.visits))
        if sees_images(settings):
            scanned = [at for at, visit in enumerate(patient.visits) if visit.imaged or visit.visit_id is not None]
            numbers = scanned or numbers
        seen = tuple(observe(place, patient.key, patient, at, images, settings, _NO_LABEL) for at in numbers)
        found.append(PatientVisits(place[1], seen))
    if not found:
        raise CohortError(f"{known.site.data[0]}: no patient in its tables; expected participants.tsv, or images")
    return sorted(found, key=lambda patient: patient.subject)
