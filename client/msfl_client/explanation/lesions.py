"""Relevance maps of a segmentation, for the cases of a BIDS folder, in each case's own grid.

Legend: C contrast, D/H/W voxels, I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from msfl_client.data.bids import Case
from msfl_client.data.case_checks import check_case
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.findings import Finding, notes_on_folder, refusals_in, warnings_in
from msfl_client.data.visit_pairs import study_cases
from msfl_client.explanation.deletion import deletion
from msfl_client.explanation.lesion_score import LesionScore
from msfl_client.explanation.maps import Place, write_maps
from msfl_client.explanation.methods import METHODS
from msfl_client.explanation.page import write_page
from msfl_client.explanation.rows import LEFT_OUT, ExplainedVisit, doubts, write_table
from msfl_client.explanation.score import explained
from msfl_client.imaging.volumes import read_volume
from msfl_client.prediction.ensemble import Ensemble, load_ensemble
from msfl_client.prediction.lesions import prepare_case
from msfl_client.prediction.output_folder import describe_output
from msfl_client.segmentation.network_input import target_contrast
from msfl_common.config.site import SiteConfig
from msfl_common.errors import CaseError, CohortError
from msfl_common.models.model_card import lesions_in_words
from msfl_common.system.words import none_of

_MEANING = "mean log odds of lesion over the voxels that the model outlines"


def explain_lesions(
    model: Path,
    source: Path,
    output: Path,
    device_name: str | Sequence[str],
    method: str,
    on_case: Callable[[int, int], None] = lambda *_: None,
    origin: str = "",
    force: bool = False,
    chosen: Chosen = ALL,
    on_note: Callable[[str], None] = lambda _: None,
) -> list[ExplainedVisit]:
    """Explain why the lesions of each case are outlined; a bad case is named in the table and the rest continue.

    Args:
        model: a model folder.
        source: BIDS folder, as of `predict_folder`.
        output: BIDS derivative folder to write.
        device_name: as in site.yaml.
        method: of `METHODS`.
        on_case: told how many cases are done, and of how many.
        origin: who vouches for the model.
        force: explain what cannot be right (`findings.DOUBTS`), too.
        chosen: the patients and visits to explain.
        on_note: told what of the folder is passed over, where all of it is explained.

    Returns:
        A row for each case of this run.

    Raises:
        ModelFolderError: the model cannot be used.
        InputError: no such patient or visit; the output cannot be used; the method has no rule for the model.
        CohortError: no case at all could be explained.
    """
    at_work = load_ensemble([model], device_name, None)
    inputs = at_work.card.study.inputs
    cases, findings = study_cases(SiteConfig(name="input", data=(source,), state=output), inputs)
    chosen.check(((case.subject, case.visit_id) for case in cases), source)
    describe_output(output, source, at_work.card, "Relevance for what is", origin, at_work.threshold)
    for note in () if chosen else notes_on_folder(findings):
        on_note(note)
    asked, rows = chosen.among(cases), []
    title = f"Relevance for the {lesions_in_words(at_work.card.study)} of study {at_work.name}"
    for number, case in enumerate(asked, start=1):
        found = [finding for finding in findings if finding.case == case.key]
        found += check_case(case, inputs.of_images, needs_mask=False)
        rows.append(_explain_or_say_why(case, found, force, at_work, output, method))
        write_page(output, write_table(output, rows, origin), title, origin)
        on_case(number, len(asked))
    if all(row.score is None for row in rows):
        unused = none_of(len(rows), "case", "could")
        raise CohortError(f"{source}: {unused} be explained; {rows[0].participant_id}: {rows[0].status}")
    return rows


def _explain_or_say_why(
    case: Case, found: Sequence[Finding], force: bool, model: Ensemble, output: Path, method: str
) -> ExplainedVisit:
    try:
        if refused := refusals_in(found, force):
            raise CaseError("; ".join(refused))
        return _explain_case(case, model, output, method, warnings_in(found))
    except CaseError as error:
        return ExplainedVisit(case.subject, case.visit_id, method, status=f"{LEFT_OUT}{error}")


def _explain_case(case: Case, model: Ensemble, output: Path, method: str, warnings: tuple[str, ...]) -> ExplainedVisit:
    study, device = model.card.study, model.device
    prepared, case_to_input, more = prepare_case(case, study.inputs, device)
    lesion_DHW = model.probability(prepared.image_CDHW) >= model.threshold
    if not lesion_DHW.any():
        raise CaseError("the model outlines no lesion, so that there is none to explain")
    score = LesionScore(model.models[0].network, torch.as_tensor(lesion_DHW, device=device), study)
    what = explained(score, prepared.image_CDHW[None], [(study.inputs.spacing_mm,) * 3], device)
    relevance = METHODS[method].relevance(what)
    checked = deletion(what, relevance.map_VCDHW)
    own = read_volume(case.images[target_contrast(study.inputs)])
    place = Place(own, np.linalg.inv(case_to_input) @ prepared.affine)
    channels = dict(zip(study.inputs.channels, relevance.map_VCDHW[0], strict=True))
    write_maps(output, case.subject, case.visit_id, method, channels, place, model.card, _MEANING, lesion_DHW)
    speaks_DHW = relevance.map_VCDHW[0].sum(axis=0).clip(min=0)
    return ExplainedVisit(
        case.subject,
        case.visit_id,
        method,
        _MEANING,
        what.value(what.images_VCDHW),
        relevance.total,
        relevance.explains,
        float(speaks_DHW[lesion_DHW].sum() / max(speaks_DHW.sum(), 1e-12)),
        checked,
        warnings=(*warnings, *more, *doubts(method, relevance, checked)),
    )
