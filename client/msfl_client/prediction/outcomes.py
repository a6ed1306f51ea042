"""Predict the outcome of the patients of a BIDS folder: probabilities, or a number; interval, reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfl_client.clinical.observations import Observation
from msfl_client.data.bids import case_key
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.prediction.inputs import (
    KnownInputs,
    OnProgress,
    model_reference,
    read_inputs,
    site_of,
    unchecked_inputs,
)
from msfl_client.prediction.models import (
    Answer,
    FeaturePredictor,
    ImagePredictor,
    Predictor,
    Reason,
    explained_class,
)
from msfl_client.prediction.output_folder import describe_output
from msfl_client.prediction.threshold import has_threshold, threshold_of
from msfl_client.prediction.visits import PatientVisits, patients_to_predict
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import Words
from msfl_common.errors import CaseError, CohortError
from msfl_common.metrics.reliability import Interval, interval_at
from msfl_common.metrics.scored import predict_classes, scored_classes
from msfl_common.models.model_folder import ModelCard, load_model
from msfl_common.models.model_signature import check_origin
from msfl_common.system.devices import pick_device

OK, LEFT_OUT = "ok", "left out: "


@dataclass(frozen=True)
class Prediction:
    """A patient at a visit; figures are None, and there are no reasons, where nothing could be predicted.

    Attributes:
        participant_id: "sub-001".
        session_id: "ses-01", or None for a visit without.
        days: from the patient's day 0 to the visit; None where no table says when.
        probabilities: class to probability.
        interval: of the share with the explained class among patients with such scores; None where no site told.
        explained: the class that interval and reasons are about: the last of two, else the most probable.
        predicted: the last of two classes from the threshold on; of more, the most probable.
        reasons: what speaks for and against the explained class, what weighs most first.
        saliency: files with the images' part in it, of a deep model.
        status: "ok", with what was passed over, or why there is no prediction.
        warnings: what deserves a look in the images of the visit and of those before.
        number: the predicted number; None of classes, whose fields are empty then.
        number_interval: where 95 of 100 such patients' numbers lie; None where no site told of errors.
    """

    participant_id: str
    session_id: str | None
    days: float | None
    probabilities: Mapping[str, float] | None
    interval: Interval | None
    explained: str | None
    predicted: str | None
    reasons: tuple[Reason, ...]
    saliency: tuple[str, ...]
    status: str
    warnings: tuple[str, ...] = ()
    number: float | None = None
    number_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Predictions:
    """What was predicted of a folder, and by which model.

    Attributes:
        card: the model's.
        rows: of this run.
        refused: by case why images that are there could not be used.
        threshold: the last of two classes is predicted from this probability on.
        chosen: what was asked for.
        notes: what of the folder is passed over, where all of it is predicted.
    """

    card: ModelCard
    rows: tuple[Prediction, ...]
    refused: Mapping[str, str]
    threshold: float
    chosen: Chosen = ALL
    notes: tuple[str, ...] = ()

    def raise_if_none(self, source: Path, table: Path) -> None:
        """Return when something could be predicted.

        Raises:
            CohortError: nothing; names the first reason.
        """
        if all(row.probabilities is None for row in self.rows):
            first, number = self.rows[0], len(self.rows)
            unused = f"none of {number} patients or visits could" if number > 1 else "the only one asked for could not"
            raise CohortError(
                f"{source}: {unused} be predicted; {first.participant_id}: {first.status}; {table} says why for each"
            )


def predict_outcomes(
    model: Path,
    source: Path,
    output: Path,
    device_name: str | Sequence[str],
    every_visit: bool,
    num_workers: int,
    on_progress: OnProgress = lambda *_: None,
    force: bool = False,
    words: Words | None = None,
    chosen: Chosen = ALL,
    threshold: float | None = None,
    with_maps: Callable[[ImagePredictor], Predictor] = lambda predictor: predictor,
) -> Predictions:
    """Predict each patient's last visit that has the model's inputs, or every visit.

    Args:
        model: a model folder of a classification.
        source: BIDS folder with tables, and images or a table of features where the model sees them.
        output: BIDS derivative folder; saliency of images is written there, and work that is kept for the next time.
        device_name: as in site.yaml.
        every_visit: a row for each visit of a patient, not for the last one alone.
        num_workers: cases at the same time, where images are read.
        on_progress: told what is done, how much of it, and of how much.
        force: use images that cannot be right (`findings.DOUBTS`), too.
        words: what the tables' own words mean, as in site.yaml.
        chosen: the patients and visits to predict.
        threshold: the last of two classes is predicted from this probability on; None: from the model's own.
        with_maps: of a deep model, what predicts in its place, and writes other maps.

    Raises:
        ModelFolderError: the model cannot be used.
        InputError: no such patient or visit; no such threshold; the folder, or one of its tables, cannot be used.
    """
    card, weights = load_model(model)
    assert card.study.classification is not None
    if not source.is_dir():  # before anything is written
        raise CohortError(f"{source}: no such folder; give a BIDS folder with --input")
    device, from_which = pick_device(device_name), threshold_of(card, threshold)
    if chosen:
        there = unchecked_inputs(card, model, site_of(source, output, words=words))
        chosen.check(_visits_of(patients_to_predict(there, card.study.classification)), source)
    decides = from_which if has_threshold(card) else None
    describe_output(output, source, card, "Outcomes of MS", check_origin(model).sentence, decides)
    known = read_inputs(card, model, source, output, device_name, num_workers, on_progress, force, words, chosen)
    predictor: Predictor
    if isinstance(card.study.classification.model, DeepModel):
        predictor = with_maps(ImagePredictor(card, weights, known, model_reference(card, model), output, device))
    else:
        predictor = FeaturePredictor(card, weights, known)
    rows: list[Prediction] = []
    everyone = patients_to_predict(known, card.study.classification)
    patients = [patient for patient in everyone if _is_asked_for(patient, chosen)]
    for number, patient in enumerate(patients, start=1):
        made = _of_patient(patient, chosen, predictor, card, from_which, output, every_visit)
        rows += [replace(row, warnings=(*_warnings(row, patient, known), *_outside(row))) for row in made]
        on_progress("Predicting patients", number, len(patients))
    return Predictions(card, tuple(rows), known.refused, from_which, chosen, () if chosen else known.notes)


def _is_asked_for(patient: PatientVisits, chosen: Chosen) -> bool:
    """Also where only their row can say why there is no visit of theirs."""
    if not patient.visits:
        return chosen.whole_patients.takes(patient.subject, None)
    return any(chosen.takes(one.subject, one.visit_id) for one in patient.visits)


def _visits_of(patients: Sequence[PatientVisits]) -> Iterator[tuple[str, str | None]]:
    for patient in patients:
        yield patient.subject, None
        yield from ((patient.subject, one.visit_id) for one in patient.visits)


def _warnings(row: Prediction, patient: PatientVisits, known: KnownInputs) -> tuple[str, ...]:
    """What deserves a look in the images that a row rests on; that of earlier visits with their names."""
    found: tuple[str, ...] = ()
    for one in patient.visits:
        texts = known.warnings.get(case_key(one.subject, one.visit_id, one.dataset), ())
        if one.visit_id == row.session_id and one.visits[-1].days == row.days:
            return (*found, *texts)
        found += tuple(f"{one.visit_id}: {text}" for text in texts)
    return ()


def _outside(row: Prediction) -> tuple[str, ...]:
    """A word where a probability is not borne out by what came of patients with such scores."""
    if row.interval is None or row.probabilities is None or row.explained is None:
        return ()
    probability, interval = row.probabilities[row.explained], row.interval
    if interval.low <= probability <= interval.high:
        return ()
    how = "above" if probability > interval.high else "below"
    seen = f"{interval.low:.2f} to {interval.high:.2f}"
    return (f"P({row.explained}) {probability:.2f} is {how} what was seen in the study's such patients, {seen}",)


def _of_patient(
    patient: PatientVisits,
    chosen: Chosen,
    predictor: Predictor,
    card: ModelCard,
    threshold: float,
    output: Path,
    every_visit: bool,
) -> list[Prediction]:
    if not patient.visits:
        return [_left_out(patient.subject, None, patient.reason)]
    visits = [one for one in patient.visits if chosen.takes(one.subject, one.visit_id)]
    if every_visit:
        return [_of_visit(one, predictor, card, threshold, output) for one in visits]
    try:
        predictor.expect_as_trained(visits[-1])  # an earlier visit would answer another question
    except CaseError as error:
        return [_left_out(patient.subject, visits[-1], str(error))]
    passed_over: list[Prediction] = []
    for one in reversed(visits):
        row = _of_visit(one, predictor, card, threshold, output, tuple(passed_over))
        if row.probabilities is not None:
            return [row]
        passed_over.append(row)
    last, *earlier = passed_over
    others = (
        f"; {row.session_id}: {row.status.removeprefix(LEFT_OUT)}" for row in earlier if row.status != last.status
    )
    return [replace(last, status=last.status + "".join(others))]


def _of_visit(
    one: Observation,
    predictor: Predictor,
    card: ModelCard,
    threshold: float,
    output: Path,
    later: tuple[Prediction, ...] = (),
) -> Prediction:
    try:
        predictor.refuse(one)
        answer = predictor.predict(one)
    except (CaseError, OSError) as error:
        return _left_out(one.subject, one, str(error))
    why = later[0].status.removeprefix(LEFT_OUT) if later else ""
    status = f"{OK}; passed over {len(later)} later visits, the last for: {why}" if later else OK
    return _row(one, answer, card, threshold, output, status)


def _row(one: Observation, answer: Answer, card: ModelCard, threshold: float, output: Path, status: str) -> Prediction:
    if answer.number is not None:
        assert card.study.regression is not None
        possible, error = card.study.regression.outcome.range, card.prediction_error
        row = _left_out(one.subject, one, "")
        ends = None if error is None else error.interval(answer.number, *possible)
        return replace(
            row, probabilities={}, number=answer.number, number_interval=ends, reasons=answer.reasons, status=status
        )
    number = explained_class(answer.probabilities_K)
    predicted = int(predict_classes(answer.probabilities_K[None], threshold)[0])
    return Prediction(
        participant_id=one.subject,
        session_id=one.visit_id,
        days=one.visits[-1].days,
        probabilities={card.labels[at]: float(value) for at, value in enumerate(answer.probabilities_K)},
        interval=_interval(card, number, float(answer.probabilities_K[number])),
        explained=card.labels[number],
        predicted=card.labels[predicted],
        reasons=answer.reasons,
        saliency=tuple(str(path.relative_to(output)) for path in answer.files),
        status=status,
    )


def _left_out(subject: str, one: Observation | None, why: str) -> Prediction:
    visit_id, days = (one.visit_id, one.visits[-1].days) if one else (None, None)
    return Prediction(subject, visit_id, days, None, None, None, None, (), (), f"{LEFT_OUT}{why}")


def _interval(card: ModelCard, number: int, probability: float) -> Interval | None:
    if card.reliability is None:
        return None
    groups = card.reliability.groups[scored_classes(len(card.labels)).index(number)]
    return interval_at(groups, probability, card.reliability.design_effect)
