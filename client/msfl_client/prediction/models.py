"""A trained classification, ready to predict a visit: probabilities, and what speaks for them.

Legend: K classes, P inputs, V visits, C contrast, D/H/W slices and pixels, E clinical values and features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification.deep_loop import predict, saliency
from msfl_client.classification.sequence_maker import SequenceMaker
from msfl_client.classification.visit_volumes import refuse_too_coarse, slice_grid
from msfl_client.clinical.inputs import known_inputs, never_trained, rows_by_visit, values_of
from msfl_client.clinical.observations import Observation
from msfl_client.data.bids import case_key
from msfl_client.imaging.brain_signal import read_brain
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.prediction.inputs import KnownInputs
from msfl_common.config.regression import NumericOutcome
from msfl_common.errors import CaseError
from msfl_common.feature_models import explain, predict_proba, predict_values
from msfl_common.harmonization import Reference
from msfl_common.models.deep_models import build_classifier, deep_settings
from msfl_common.models.deep_models.visit_classifier import FIELD_MM
from msfl_common.models.model_card import NOTICE, ModelCard
from msfl_common.models.network import set_weights
from msfl_common.models.weights import Weights
from msfl_common.system.files import write_json


@dataclass(frozen=True)
class Reason:
    """What an input adds to the log odds of the explained class, or to a number.

    Attributes:
        input: a feature, a clinical value or, of a deep model, a contrast or mask.
        value: what the case has; None for a contrast or mask, and for what was not measured at the visit.
        effect: in log odds, where above 0 it speaks for the class; or in the number's unit.
    """

    input: str
    value: float | None
    effect: float


@dataclass(frozen=True)
class Answer:
    """What a model says of a visit.

    Attributes:
        probabilities_K: of each class; none where a number is predicted.
        reasons: those that weigh most first.
        files: saliency maps that were written.
        number: the predicted number, within its range; None of classes.
    """

    probabilities_K: NDArray[np.float64]
    reasons: tuple[Reason, ...]
    files: tuple[Path, ...] = ()
    number: float | None = None


class Predictor(Protocol):
    """A model of features, or a deep one."""

    def expect_as_trained(self, one: Observation) -> None:
        """Return when the model learned from patients with such a history.

        Raises:
            CaseError: it did not; says from what it learned, and what to do.
        """

    def refuse(self, one: Observation) -> None:
        """Return when the visit has what the model was trained with.

        Raises:
            CaseError: it has not; says what is missing.
        """

    def predict(self, one: Observation) -> Answer:
        """Predict a visit that was not refused.

        Raises:
            CaseError: an image cannot be read.
        """


def explained_class(probabilities_K: NDArray[np.float64]) -> int:
    """The class that reasons and interval are about: the last of two, else the most probable."""
    return 1 if len(probabilities_K) == 2 else int(probabilities_K.argmax())


class FeaturePredictor:
    """A model of features; see `Predictor`."""

    def __init__(self, card: ModelCard, weights: Weights, known: KnownInputs) -> None:
        assert card.study.classification is not None
        self._settings, self._state, self._why = card.study.classification, weights, known.reasons
        self._rows = rows_by_visit(known.table)
        private = card.study.differential_privacy
        self._is_noisy = private is not None and private.promises  # its means tell of no patient for certain

    def expect_as_trained(self, one: Observation) -> None:
        """See `Predictor`: such a model sees no history."""

    def refuse(self, one: Observation) -> None:
        """See `Predictor`."""
        known = known_inputs(one, self._settings, self._rows)
        if missing := [name for name in self._settings.inputs if name not in known]:
            why = self._why.get(case_key(one.subject, one.visit_id, one.dataset), "not measured at the visit")
            is_feature = bool({*missing} & {*self._settings.features})
            raise CaseError(f"no {', '.join(values_of(self._settings, missing))}" + (f" ({why})" if is_feature else ""))
        if not self._is_noisy and (never := never_trained(self._settings, self._state["mean"], known)):
            raise CaseError(f"{never}, which no training patient had: the model cannot tell what it means")

    def predict(self, one: Observation) -> Answer:
        """See `Predictor`."""
        known = known_inputs(one, self._settings, self._rows)
        inputs_P = np.array(list(known.values()))
        if isinstance(self._settings.outcome, NumericOutcome):
            number_1 = self._settings.outcome.possible(predict_values(self._settings, self._state, inputs_P[None]))
            effects = explain(self._settings, self._state, inputs_P)
            reasons = [Reason(name, known[name], effect) for name, effect in effects.items()]
            return Answer(np.empty(0), _weightiest(reasons), number=float(number_1[0]))
        probabilities_K = predict_proba(self._settings, self._state, inputs_P[None])[0]
        effects = explain(self._settings, self._state, inputs_P, explained_class(probabilities_K))
        reasons = [Reason(name, known[name], effect) for name, effect in effects.items()]
        return Answer(probabilities_K, _weightiest(reasons))


class ImagePredictor:
    """A deep model; see `Predictor`. Writes the saliency of the visit's images under `output`.

    Attributes:
        card: the model's.
        known: what can be used of the folder.
        output: where files are written.
        device: where the network is.
        model: the study's settings of it.
        network: with its weights.
        maker: of what it is given.
    """

    def __init__(
        self,
        card: ModelCard,
        weights: Weights,
        known: KnownInputs,
        reference: Reference | None,
        output: Path,
        device: torch.device,
    ) -> None:
        self.card, self.known, self.output, self.device = card, known, output, device
        self._settings, self.model = deep_settings(card.study)
        self.network = build_classifier(card.study)
        set_weights(self.network, weights)
        cache = known.site.state / "cache" / "visits"
        self.maker = SequenceMaker(card.study, cache, reference, known.table)
        self._rows = rows_by_visit(known.table)

    def expect_as_trained(self, one: Observation) -> None:
        """See `Predictor`."""
        scanned = [visit for visit in one.visits if visit.case is not None]
        if self._settings.outcome.observations == "first" and len(scanned) > 1:
            assert scanned[0].case is not None
            first = scanned[0].case.visit_id
            raise CaseError(
                f"{len(scanned)} visits with images, and the model was trained on each patient's first alone "
                f"(outcome.observations: first); predict from that (--visit {first}), or train a model with "
                "observations: every, which sees visits in sequence"
            )

    def refuse(self, one: Observation) -> None:
        """See `Predictor`."""
        self.expect_as_trained(one)
        key = case_key(one.subject, one.visit_id, one.dataset)
        if one.case is None:
            raise CaseError(self.known.reasons.get(key, "no images at the visit"))
        known = known_inputs(one, self._settings, self._rows)
        if missing := [name for name in self._settings.features if name not in known]:
            raise CaseError(f"no {', '.join(missing)} ({self.known.reasons.get(key, 'not measured at the visit')})")
        measured = {name for visit in one.visits for name in visit.clinical}
        if never := [name for name in self._settings.value_of if name not in measured]:
            raise CaseError(f"no {', '.join(values_of(self._settings, never))} at this visit or an earlier one")
        for visit in one.visits:
            if visit.case is not None:
                first = read_brain(visit.case.images[self.card.study.inputs.contrasts[0]])
                refuse_too_coarse(first.image, self.model)

    def predict(self, one: Observation) -> Answer:
        """See `Predictor`."""
        study = self.card.study
        sequence = self.maker.make(one)
        probabilities_K = predict(self.network, [sequence], study, self.device)[0]
        found = saliency(self.network, sequence, study, self.device)
        known = known_inputs(one, self._settings, self._rows)
        names, channels = self._settings.inputs, study.inputs.network_channels
        effects = zip(names, found.clinical_VE.sum(axis=0), strict=True)
        reasons = [Reason(name, known.get(name), float(effect)) for name, effect in effects]
        images = zip(channels, found.volumes_VCDHW.sum(axis=(0, 2, 3, 4)), strict=True)
        reasons += [Reason(channel, None, float(effect)) for channel, effect in images]
        files = self._write(one, found.volumes_VCDHW[-1])
        return Answer(probabilities_K, _weightiest(reasons), files)

    def _write(self, one: Observation, saliency_CDHW: NDArray[np.float32]) -> tuple[Path, ...]:
        """The saliency of each channel on the brain's own slices, with a JSON file that says where they lie."""
        assert one.case is not None
        inputs = self.card.study.inputs
        source = one.case.images[inputs.contrasts[0]]
        grid = slice_grid(read_brain(source).image, self.model)
        stem = "_".join(part for part in (one.subject, one.visit_id) if part)
        folder = self.output / one.subject / (one.visit_id or "") / "anat"
        pixel_mm = FIELD_MM / self.model.pixels
        sidecar = {
            "Notice": NOTICE,
            "Description": "gradient times input of the log odds of the explained class; above 0 it speaks for it",
            "Grid": f"the slices of {source.name}, in pixels of {pixel_mm:.3g} mm; a slice that "
            "the model did not see has the values of the nearest one that it saw",
            "ModelWeightsSHA256": self.card.weights_sha256,
        }
        files = []
        for channel, map_DHW in zip(inputs.network_channels, saliency_CDHW, strict=True):
            path = folder / f"{stem}_desc-saliency_{channel}.nii.gz"
            write_json(path.with_name(f"{stem}_desc-saliency_{channel}.json"), sidecar)
            save_image(path, grid.on_slices(map_DHW), grid.affine)
            files.append(path)
        return tuple(files)


def _weightiest(reasons: list[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=lambda reason: -abs(reason.effect)))
