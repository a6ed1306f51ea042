"""Lesion masks and probability maps for a BIDS folder, in each case's own grid, as BIDS derivatives.

Legend: R regions of lesions, I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from msfl_client.data.bids import Case
from msfl_client.data.case_checks import check_case
from msfl_client.data.chosen import ALL, Chosen
from msfl_client.data.derivative import sha256_of
from msfl_client.data.findings import Finding, notes_on_folder, refusals_in, warnings_in
from msfl_client.data.qc_record import poor_fit
from msfl_client.data.single_case import case_of, images_of, raw_of
from msfl_client.data.visit_pairs import study_cases
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.imaging.resampling import read_image
from msfl_client.imaging.skull_strip_detection import is_brain_alone
from msfl_client.imaging.volumes import read_volume
from msfl_client.prediction.class_map import write_classes
from msfl_client.prediction.ensemble import Ensemble, load_ensemble
from msfl_client.prediction.lesions_table import TABLE, PredictedCase, read_rows, write_rows
from msfl_client.prediction.output_folder import describe_output, threshold_facts
from msfl_client.prediction.page import picture_path, write_page
from msfl_client.prediction.picture import draw
from msfl_client.segmentation.lesion_classes import labels_of_regions
from msfl_client.segmentation.network_input import (
    NetworkInput,
    make_network_input,
    network_input_of_images,
    target_contrast,
)
from msfl_client.segmentation.own_grid import on_grid
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError, CohortError, InputError
from msfl_common.metrics.segmentation import label_lesions
from msfl_common.models.model_card import NOTICE, ModelCard, lesions_in_words
from msfl_common.system.files import write_bytes, write_json
from msfl_common.system.memory import freed_memory_kept
from msfl_common.system.reading import read_mapping
from msfl_common.system.words import none_of

MASK, MAP, CLASSES = "mask", "probseg", "dseg"
_SOURCES = "SourcesSHA256"


def predict_folder(
    model: Path | Sequence[Path],
    source: Path,
    output: Path,
    device_name: str | Sequence[str],
    on_case: Callable[[int, int], None] = lambda *_: None,
    origin: str = "",
    force: bool = False,
    chosen: Chosen = ALL,
    threshold: float | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> list[PredictedCase]:
    """Predict the cases of a BIDS folder; a bad case is named in the table and the rest continue.

    Args:
        model: a model folder, or several, whose probabilities are averaged.
        source: BIDS folder with the model's contrasts: skull-stripped images, or others, which are preprocessed first.
        output: BIDS derivative folder to write; see `describe_output`. What it holds of other cases stays.
        device_name: as in site.yaml.
        on_case: told how many cases are done, and of how many.
        origin: who vouches for the model, for those who get the output.
        force: predict what cannot be right (`findings.DOUBTS`), too.
        chosen: the patients and visits to predict.
        threshold: a voxel is lesion from this probability on; None: the models' own.
        on_note: told what of the folder is passed over, where all of it is predicted.

    Returns:
        A row for each case of this run.

    Raises:
        ModelFolderError: a model cannot be used.
        InputError: no such patient or visit; no such threshold; the output cannot be used.
        CohortError: no case at all could be predicted.
    """
    at_work = load_ensemble([model] if isinstance(model, Path) else model, device_name, threshold)
    card = at_work.card
    cases, findings = study_cases(SiteConfig(name="input", data=(source,), state=output), card.study.inputs)
    chosen.check(((case.subject, case.visit_id) for case in cases), source)
    describe_output(output, source, card, _what(card), origin, at_work.threshold, at_work.weights_sha256)
    notes = () if chosen else tuple(notes_on_folder(findings))
    for note in notes:
        on_note(note)
    return _predict_cases(chosen.among(cases), findings, force, at_work, source, output, origin, on_case, notes)


def predict_images(
    model: Path | Sequence[Path],
    words: Sequence[str],
    output: Path,
    device_name: str | Sequence[str],
    on_case: Callable[[int, int], None] = lambda *_: None,
    origin: str = "",
    force: bool = False,
    named: Chosen = ALL,
    threshold: float | None = None,
) -> list[PredictedCase]:
    """Predict images that a person names one by one, as `predict_folder` those of a case in a folder.

    Args:
        model: a model folder, or several, whose probabilities are averaged.
        words: `FLAIR=scan.nii.gz`, one of each contrast of the model.
        output: as of `predict_folder`; what was predicted from other images under this name is refused.
        device_name: as in site.yaml.
        on_case: told when it is done.
        origin: who vouches for the model.
        force: predict what cannot be right, too.
        named: the patient and visit that files are named by.
        threshold: a voxel is lesion from this probability on; None: the models' own.

    Raises:
        ModelFolderError: a model cannot be used.
        InputError: the images are not those that the model needs; the output cannot be used.
        CohortError: they cannot be predicted.
    """
    at_work = load_ensemble([model] if isinstance(model, Path) else model, device_name, threshold)
    card = at_work.card
    images = images_of(words, card.study.inputs.channels)
    case, findings = case_of(images, named)
    check_same_images(case, output)
    for path in images.values():
        describe_output(output, raw_of(path), card, _what(card), origin, at_work.threshold, at_work.weights_sha256)
    return _predict_cases([case], findings, force, at_work, "--image", output, origin, on_case)


def check_same_images(case: Case, output: Path) -> None:
    """See that a case's name in an output is new, or that of the same images."""
    mask = file_of(case, output, MASK)
    if mask.exists() and read_mapping(file_of(case, output, MASK, ".json")).get(_SOURCES) != _digests(case):
        raise InputError(
            f"{mask}: was predicted from other images; name these otherwise with --subject, or move that away"
        )


def _what(card: ModelCard) -> str:
    return f"MS {lesions_in_words(card.study)}"


def _digests(case: Case) -> dict[str, str]:
    return {contrast: sha256_of(path) for contrast, path in case.images.items()}


def _predict_cases(
    cases: Sequence[Case],
    findings: Sequence[Finding],
    force: bool,
    model: Ensemble,
    source: Path | str,
    output: Path,
    origin: str,
    on_case: Callable[[int, int], None],
    notes: Sequence[str] = (),
) -> list[PredictedCase]:
    """Predict cases one by one; after each the table says of all files that are there which they are.

    So does the page, also where the rest is interrupted.
    """
    table = output / TABLE
    earlier = read_rows(table, model.threshold)
    rows: list[PredictedCase] = []
    in_table: Sequence[PredictedCase] = earlier
    try:
        for number, case in enumerate(cases, start=1):
            found = [finding for finding in findings if finding.case == case.key]
            found += check_case(case, model.card.study.inputs.of_images, needs_mask=False)
            rows.append(_predict_or_say_why(case, found, force, model, output))
            in_table = write_rows(table, earlier, rows)
            on_case(number, len(cases))
    finally:
        title = f"{lesions_in_words(model.card.study).capitalize()} predicted by study {model.name}"
        write_page(output, in_table, title, model.threshold, model.caution, origin, notes)
    if all(row.lesion_count is None for row in rows):
        first = f"{rows[0].participant_id} {rows[0].session_id}: {rows[0].status}"
        unused = none_of(len(rows), "case", "could")
        raise CohortError(f"{source}: {unused} be used; {first}; {table} says why for each")
    return rows


def _predict_or_say_why(
    case: Case,
    found: Sequence[Finding],
    force: bool,
    model: Ensemble,
    output: Path,
) -> PredictedCase:
    row = PredictedCase(case.subject, case.visit_id or "n/a", None, None, "ok", warnings_in(found))
    try:
        if refused := refusals_in(found, force):
            raise CaseError("; ".join(refused))
        count, volume_ml, more = _predict_case(case, model, output)
    except CaseError as error:
        stale = "; the mask that lies here is an earlier run's" if file_of(case, output, MASK).exists() else ""
        return replace(row, status=f"left out: {error}{stale}")
    warnings = (*row.warnings, *more)
    return replace(row, lesion_count=count, lesion_volume_ml=volume_ml, warnings=warnings, threshold=model.threshold)


def _predict_case(case: Case, model: Ensemble, output: Path) -> tuple[int, float, tuple[str, ...]]:
    """Write one case's mask and probability map; returns lesion count, volume (ml), and preprocessing's warnings."""
    study = model.card.study
    prepared, case_to_input, warnings = prepare_case(case, study.inputs, model.device)
    with freed_memory_kept():
        probability_RDHW = model.regions(prepared.image_CDHW)
    own = read_volume(case.images[target_contrast(study.inputs)])
    to_own = np.linalg.inv(case_to_input) @ prepared.affine
    probability_RIJK = np.stack([on_grid(one, to_own, (own.shape, own.affine)) for one in probability_RDHW])
    probability_IJK = probability_RIJK[0]
    mask_IJK = probability_IJK >= model.threshold
    spacing_mm = voxel_sizes(own.affine)
    picture = draw(own, mask_IJK)
    save_image(file_of(case, output, MAP), probability_IJK, own.affine)
    save_image(file_of(case, output, MASK), mask_IJK.astype(np.uint8), own.affine)
    write_json(file_of(case, output, MASK, ".json"), _about_mask(case, model))
    if study.inputs.lesion_classes:
        classes_IJK = labels_of_regions(probability_RIJK, model.threshold)
        path = file_of(case, output, CLASSES)
        write_classes(path, classes_IJK, own.affine, model.card.labels, _about_mask(case, model))
    write_bytes(picture_path(output, case.subject, case.visit_id), picture, secret=True)
    _, count = label_lesions(mask_IJK, tuple(float(size) for size in spacing_mm))  # type: ignore[arg-type]
    return count, round(float(mask_IJK.sum() * np.prod(spacing_mm) / 1000), 4), warnings


def _about_mask(case: Case, model: Ensemble) -> dict[str, object]:
    """What goes with a mask wherever it is copied to."""
    about = threshold_facts(model.card, model.threshold)
    return {"Notice": NOTICE, "ModelWeightsSHA256": model.weights_sha256, **about, _SOURCES: _digests(case)}


def file_of(case: Case, output: Path, what: str, ending: str = ".nii.gz") -> Path:
    """A case's mask, probability map or map of classes."""
    stem = "_".join(part for part in (case.subject, case.visit_id) if part)
    entity = "seg" if what == CLASSES else "label"
    return output / case.subject / (case.visit_id or "") / "anat" / f"{stem}_{entity}-{case.mask_label}_{what}{ending}"


def prepare_case(
    case: Case, inputs: Inputs, device: torch.device
) -> tuple[NetworkInput, NDArray[np.float64], tuple[str, ...]]:
    """What the network sees, where it lies and what deserves a look.

    It lies there by 4 x 4, RAS mm of the reference contrast's file to its RAS mm.

    A skull-stripped image is used as it is. Any other is preprocessed as by `msfl-client preprocess`: the model has
    only seen skull-stripped images and would mark scalp and eyes.

    Raises:
        CaseError: not skull-stripped, and skull stripping failed or its packages are missing.
    """
    images = {name: read_image(case.images[name]) for name in inputs.channels}
    heads = [name for name, image in images.items() if not is_brain_alone(np.asarray(image.dataobj), image.affine)]
    if not heads:
        return make_network_input(case, inputs), np.eye(4), ()
    try:
        from msfl_client.preprocessing.pipeline import preprocess_case
        from msfl_client.preprocessing.qc_measures import fit_to_template

        done = preprocess_case(replace(case, mask=None), inputs, "none", device)
    except ModuleNotFoundError as error:
        raise CaseError(
            f"expected a skull-stripped image, found one that is not: {', '.join(heads)}; "
            f"install msfl[client], which brings {error.name}, or extract the brain first"
        ) from None
    images = {name: nib.Nifti1Image(voxels_DHW, done.case.affine) for name, voxels_DHW in done.case.images_DHW.items()}
    prepared = network_input_of_images(case.key, images, None, inputs)
    return prepared, done.native_to_mni(target_contrast(inputs)), poor_fit(*fit_to_template(done.case))
