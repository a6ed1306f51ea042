"""What the DICOM headers say of a series and its study, classic and enhanced files alike."""

from __future__ import annotations

import datetime
import re
from typing import Any

from msfl_client.data.dicom_files import DicomSeries, ge_sequence, shared_value
from msfl_client.data.dicom_people import Person, Study
from msfl_client.data.dicom_series import SeriesFacts
from msfl_client.data.dicom_stacks import Part
from msfl_client.data.dicom_tables import UNKNOWN, VisitFacts
from msfl_common.config.contrasts import Pulse


def facts_of_part(series: DicomSeries, part: Part) -> SeriesFacts:
    """What a series' files say of a part of it."""
    head, text = series.head, series.text
    scanning = frozenset(_values(head.get("ScanningSequence")))
    return SeriesFacts(
        text("SeriesDescription"),
        text("ProtocolName"),
        text("StudyDescription"),
        text("Modality") or "MR",
        text("SequenceName") or text("PulseSequenceName") or ge_sequence(head),
        text("BodyPartExamined"),
        part.kinds,
        scanning,
        frozenset(_values(head.get("SequenceVariant"))),
        Pulse(
            part.echo_s,
            _seconds(head.get("RepetitionTime"))
            or _seconds(shared_value(head, "MRTimingAndRelatedParametersSequence", "RepetitionTime")),
            _seconds(head.get("InversionTime")) or _seconds(shared_value(head, "MRModifierSequence", "InversionTimes")),
            _is_gradient_echo(scanning, text("EchoPulseSequence").upper()),
        ),
        _agent(head),
        _is_before_agent(head),
        text("AngioFlag").upper() == "Y",
        _float(head.get("DiffusionBValue") or shared_value(head, "MRDiffusionSequence", "DiffusionBValue")) > 0,
        len(part.frames),
        part.coverage_mm,
    )


def study_of(series: DicomSeries) -> Study:
    """The study of a series. Its day is the one on which it began, though it may have gone over midnight."""
    text = series.text
    names = ("StudyDate", "SeriesDate", "AcquisitionDate", "AcquisitionDateTime", "ContentDate")
    date = next((day for name in names if (day := _day(text(name)))), "")
    sex = text("PatientSex").upper()
    person = Person(
        text("PatientID"), _day(text("PatientBirthDate")), sex if sex in ("F", "M") else "", text("PatientName")
    )
    uid = text("StudyInstanceUID") or f"{person.patient}|{person.name}|{person.birth_date}|{date}"
    return Study(" ".join(uid.split()), date, person)


def visit_facts_of(series: DicomSeries, study: Study) -> VisitFacts:
    """Sex, and whole years at the scan, as the scanner says or from the date of birth."""
    person = study.person
    age = UNKNOWN
    if said := re.fullmatch(r"0*(\d+)Y", series.text("PatientAge")):
        age = said[1]
    elif person.birth_date and study.date:
        born, then = (datetime.date.fromisoformat(day) for day in (person.birth_date, study.date))
        age = str(then.year - born.year - ((then.month, then.day) < (born.month, born.day)))
    return VisitFacts(person.sex or UNKNOWN, age)


def _is_gradient_echo(scanning: frozenset[str], enhanced: str) -> bool | None:
    if enhanced:
        return enhanced == "GRADIENT"
    return "SE" not in scanning if scanning & {"SE", "GR"} else None


def _agent(head: Any) -> str:
    volume = head.get("ContrastBolusVolume")
    if volume is not None and str(volume).strip() and _float(volume) == 0:
        return ""
    if agent := str(head.get("ContrastBolusAgent") or "").strip():
        return agent
    sequence = head.get("ContrastBolusAgentSequence")
    return str(sequence[0].get("CodeMeaning", "agent")) if sequence else ""


def _is_before_agent(head: Any) -> bool:
    times = [str(head.get(name) or "").split(".")[0] for name in ("AcquisitionTime", "ContrastBolusStartTime")]
    return all(re.fullmatch(r"\d{6}", time) for time in times) and times[0] < times[1]


def _day(text: str) -> str:
    """`20210607...` as 2021-06-07; empty where it is no day."""
    try:
        return datetime.datetime.strptime(text.replace("-", "")[:8], "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _values(value: Any) -> list[str]:
    several = [value] if isinstance(value, str) else list(value or ())
    return [str(one).strip().upper() for one in several]


def _seconds(milliseconds: Any) -> float:
    """Of milliseconds, or of the first of several; 0 where there are none."""
    return _float(milliseconds) / 1000


def _float(value: Any) -> float:
    if value is not None and not isinstance(value, str | int | float) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
