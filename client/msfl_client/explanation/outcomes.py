"""Relevance maps of a deep model of outcomes, for the patients of a BIDS folder, in each image's own space.

Legend: V visits, C contrast, D/H/W slices and pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from msfl_client.classification.deep_loop import predict
from msfl_client.classification.visit_sequences import make_batch
from msfl_client.classification.visit_volumes import SliceGrid, slice_grid
from msfl_client.clinical.observations import Observation
from msfl_client.data.bids import Case
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.derivative import is_derived, read_sidecar
from msfl_client.data.visit_pairs import study_cases
from msfl_client.explanation.deletion import deletion
from msfl_client.explanation.maps import Place, write_maps
from msfl_client.explanation.methods import METHODS
from msfl_client.explanation.outcome_score import OutcomeScore
from msfl_client.explanation.page import write_page
from msfl_client.explanation.rows import ExplainedVisit, doubts, write_table
from msfl_client.explanation.score import explained
from msfl_client.imaging.brain_signal import read_brain
from msfl_client.imaging.volumes import read_volume
from msfl_client.prediction.inputs import OnProgress
from msfl_client.prediction.models import Answer, ImagePredictor, Predictor, explained_class
from msfl_client.prediction.outcomes import predict_outcomes
from msfl_common.config.classification import DeepModel
from msfl_common.config.site import Words
from msfl_common.errors import CaseError, InputError
from msfl_common.models.model_folder import read_card


class ExplainingPredictor:
    """A deep model that says of each visit what its prediction rests on; see `Predictor`.

    Args:
        model: what predicts.
        method: of `METHODS`.

    Attributes:
        rows: of the visits that were predicted.
    """

    def __init__(self, model: ImagePredictor, method: str) -> None:
        self.rows: list[ExplainedVisit] = []
        self._model, self._method = model, method
        found, _ = study_cases(model.known.site, model.card.study.inputs)
        self._originals = {case.key: case for case in found}

    def expect_as_trained(self, one: Observation) -> None:
        """See `Predictor`."""
        self._model.expect_as_trained(one)

    def refuse(self, one: Observation) -> None:
        """See `Predictor`."""
        self._model.refuse(one)

    def predict(self, one: Observation) -> Answer:
        """See `Predictor`; writes the maps of every visit that the model looked at."""
        model, study = self._model, self._model.card.study
        sequence = model.maker.make(one)
        probabilities_K = predict(model.network, [sequence], study, model.device)[0]
        chosen = explained_class(probabilities_K)
        batch = make_batch([sequence], study).to(model.device)
        cases, images_VCDHW = self._cases_of(one, batch.images_BVCDHW.shape[1]), batch.images_BVCDHW[0].cpu().numpy()
        grids = [None if case is None else self._grid_of(case) for case in cases]
        spacings = [(1.0,) * 3 if grid is None else _spacing_mm(grid) for grid in grids]
        what = explained(OutcomeScore(model.network, batch, chosen), images_VCDHW, spacings, model.device)
        relevance = METHODS[self._method].relevance(what)
        checked = deletion(what, relevance.map_VCDHW)
        meaning = f"log odds of {model.card.labels[chosen]}"
        files: tuple[Path, ...] = ()
        for case, grid, map_CDHW in zip(cases, grids, relevance.map_VCDHW, strict=True):
            if case is not None and grid is not None:
                files += self._write(case, grid, map_CDHW, f"{meaning}, predicted from {one.visit_id or 'the visit'}")
        score = what.value(what.images_VCDHW)
        figures = (score, relevance.total, relevance.explains, None, checked)
        self.rows.append(
            ExplainedVisit(
                one.subject,
                one.visit_id,
                self._method,
                meaning,
                *figures,
                warnings=doubts(self._method, relevance, checked),
            )
        )
        return Answer(probabilities_K, (), files)

    def _cases_of(self, one: Observation, num_visits: int) -> list[Case | None]:
        """The images of each visit that the model looked at, as `SequenceMaker` and `make_batch` choose them."""
        seen = [visit.case for visit in one.visits if visit.case is not None or visit.clinical]
        return seen[-num_visits:]

    def _first_contrast(self, case: Case) -> str:
        return next(name for name in self._model.card.study.inputs.contrasts if name in case.images)

    def _grid_of(self, case: Case) -> SliceGrid:
        return slice_grid(read_brain(case.images[self._first_contrast(case)]).image, self._model.model)

    def _write(self, case: Case, grid: SliceGrid, map_CDHW: NDArray[np.float32], meaning: str) -> tuple[Path, ...]:
        inputs = self._model.card.study.inputs
        slices = {
            channel: grid.on_slices(map_DHW)
            for channel, map_DHW in zip(inputs.network_channels, map_CDHW, strict=True)
            if channel in case.images or channel not in inputs.contrasts
        }
        place = self._place_of(case, grid)
        output, card = self._model.output, self._model.card
        return write_maps(output, case.subject, case.visit_id, self._method, slices, place, card, meaning)

    def _place_of(self, case: Case, grid: SliceGrid) -> Place:
        """The patient's own image, also where the model saw it in the common space."""
        contrast = self._first_contrast(case)
        if not is_derived(case):
            return Place(read_volume(case.images[contrast]), grid.affine)
        original = self._originals[case.key]
        sidecar = read_sidecar(original, self._model.known.site)
        if sidecar is None:
            raise CaseError("the way back from the common space is not known; preprocess the visit again")
        to_common = np.array(sidecar.native_to_mni) @ np.array(sidecar.to_anchor[contrast])
        return Place(read_volume(original.images[contrast]), np.linalg.inv(to_common) @ grid.affine)


def explain_outcomes(
    model: Path,
    source: Path,
    output: Path,
    device_name: str | Sequence[str],
    method: str,
    num_workers: int,
    on_progress: OnProgress = lambda *_: None,
    origin: str = "",
    force: bool = False,
    words: Words | None = None,
    chosen: Chosen = ALL,
) -> tuple[list[ExplainedVisit], tuple[str, ...]]:
    """Explain each patient's last visit that has the model's inputs.

    Args:
        model: a model folder of a deep model.
        source: BIDS folder with tables and images.
        output: BIDS derivative folder to write.
        device_name: as in site.yaml.
        method: of `METHODS`.
        num_workers: cases at the same time, where images are read.
        on_progress: told what is done, how much of it, and of how much.
        origin: who vouches for the model.
        force: use images that cannot be right (`findings.DOUBTS`), too.
        words: what the tables' own words mean, as in site.yaml.
        chosen: the patients and visits to explain.

    Returns:
        A row for each patient, and what of the folder is passed over.

    Raises:
        ModelFolderError: the model cannot be used.
        InputError: it sees no images; no such patient or visit; the folder, or one of its tables, cannot be used; the
            method has no rule for the model.
        CohortError: nobody could be explained.
    """
    card = read_card(model)
    settings = card.study.classification
    if settings is None or not isinstance(settings.model, DeepModel):
        raise InputError(
            f"{model}: study {card.study.name} predicts from figures alone; `predict` lists what each of them adds"
        )
    made: list[ExplainingPredictor] = []

    def with_maps(predictor: ImagePredictor) -> Predictor:
        made.append(ExplainingPredictor(predictor, method))
        return made[-1]

    found = predict_outcomes(
        *(model, source, output, device_name, False, num_workers, on_progress, force, words, chosen),
        with_maps=with_maps,
    )
    rows = [row for predictor in made for row in predictor.rows]
    rows += [
        ExplainedVisit(row.participant_id, row.session_id, method, status=row.status)
        for row in found.rows
        if row.probabilities is None
    ]
    title = f"Relevance for the outcomes that study {card.study.name} predicts"
    write_page(output, write_table(output, rows, origin), title, origin)
    found.raise_if_none(source, output)
    return rows, found.notes


def _spacing_mm(grid: SliceGrid) -> tuple[float, float, float]:
    """Of a voxel of the volume: from one slice that it holds to the next, and of a pixel."""
    right_mm, front_mm, up_mm = (float(size) for size in voxel_sizes(grid.affine))
    apart = float(np.diff(grid.picked).mean()) if len(grid.picked) > 1 else 1.0
    return up_mm * apart, front_mm, right_mm
