"""Lesion masks and probability maps for a BIDS folder, in each case's own grid, as BIDS derivatives.

Legend: I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from msfl_client.bids import Case, find_cases
from msfl_client.checks import check_case
from msfl_client.devices import pick_device
from msfl_client.preprocess import PreparedCase, prepare_case, reference_contrast
from msfl_client.training import predict_probability
from msfl_client.volumes import read_volume
from msfl_common import __version__
from msfl_common.config import SiteConfig
from msfl_common.errors import CaseError, CohortError, InputError
from msfl_common.files import write_bytes, write_json, write_text
from msfl_common.metrics import label_lesions
from msfl_common.model_folder import ModelCard, load_model
from msfl_common.network import build_network, set_weights

TABLE = "lesions.tsv"
LARGEST_BRAIN_ML = 2200.0


@dataclass(frozen=True)
class PredictedCase:
    """A row of `lesions.tsv`; count and volume are None for a case that could not be used."""

    participant_id: str
    session_id: str
    lesion_count: int | None
    lesion_volume_ml: float | None
    status: str


def predict_folder(
    model: Path,
    source: Path,
    output: Path,
    device_name: str,
    on_case: Callable[[int, int], None] = lambda *_: None,
) -> list[PredictedCase]:
    """Predict every case of a BIDS folder; a bad case is named in the table and the rest go on.

    Args:
        model: a model folder.
        source: BIDS folder with brain-extracted images in the model's contrasts.
        output: BIDS derivative folder to write; files of an earlier prediction are replaced one by one.
        device_name: as in site.yaml.
        on_case: told how many cases are done, and of how many.

    Raises:
        ModelFolderError: the model cannot be used.
        CohortError: no case at all could be predicted.
    """
    card, weights = load_model(model)
    network = build_network(card.study)
    set_weights(network, weights)
    device = pick_device(device_name)
    site = SiteConfig(name="input", data=(source,), state=output)
    cases, _ = find_cases(site, card.study.inputs.contrasts)
    _describe(output, card)
    rows = []
    for number, case in enumerate(cases, start=1):
        rows.append(_predict_or_say_why(case, card, network, device, output))
        on_case(number, len(cases))
    write_text(output / TABLE, _table(rows))
    if all(row.lesion_count is None for row in rows):
        raise CohortError(f"{source}: none of {len(rows)} cases could be used; {output / TABLE} says why for each")
    return rows


def _predict_or_say_why(
    case: Case, card: ModelCard, network: torch.nn.Module, device: torch.device, output: Path
) -> PredictedCase:
    failed = [finding.text for finding in check_case(case, card.study.inputs, False) if finding.level == "fail"]
    try:
        if failed:
            raise CaseError("; ".join(failed))
        count, volume_ml = _predict_case(case, card, network, device, output)
    except CaseError as error:
        return PredictedCase(case.subject, case.session or "n/a", None, None, f"left out: {error}")
    return PredictedCase(case.subject, case.session or "n/a", count, volume_ml, "ok")


def _predict_case(
    case: Case, card: ModelCard, network: torch.nn.Module, device: torch.device, output: Path
) -> tuple[int, float]:
    """Write one case's mask and probability map; returns lesion count and volume (ml)."""
    study = card.study
    prepared = prepare_case(case, study.inputs)
    _expect_brain(prepared, study.inputs.spacing_mm)
    probability_DHW = predict_probability(network, prepared.image_CDHW, study, device)
    own = read_volume(case.images[reference_contrast(study.inputs)])
    moved = resample_from_to(nib.Nifti1Image(probability_DHW, prepared.affine), (own.shape, own.affine), order=1)
    probability_IJK = np.asarray(moved.dataobj, dtype=np.float32)
    mask_IJK = probability_IJK >= card.threshold
    spacing_mm = voxel_sizes(own.affine)
    stem = "_".join(part for part in (case.subject, case.session) if part)
    folder = output / case.subject / (case.session or "") / "anat"
    _save(folder / f"{stem}_label-lesion_probseg.nii.gz", probability_IJK, own.affine)
    _save(folder / f"{stem}_label-lesion_mask.nii.gz", mask_IJK.astype(np.uint8), own.affine)
    _, count = label_lesions(mask_IJK, tuple(float(size) for size in spacing_mm))  # type: ignore[arg-type]
    return count, round(float(mask_IJK.sum() * np.prod(spacing_mm) / 1000), 4)


def _expect_brain(prepared: PreparedCase, spacing_mm: float) -> None:
    """Refuse a whole head: the model has only seen brains and would mark scalp and eyes.

    Raises:
        CaseError: more is above background than any brain with its ventricles holds.
    """
    lowest_C111 = prepared.image_CDHW.min(axis=(1, 2, 3), keepdims=True)
    foreground_ml = float((prepared.image_CDHW > lowest_C111).any(axis=0).sum()) * spacing_mm**3 / 1000
    if foreground_ml > LARGEST_BRAIN_ML:
        raise CaseError(
            f"expected a brain-extracted image, found {foreground_ml:.0f} ml of head; extract the brain first"
        )


def _save(path: Path, voxels_IJK: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """A NIfTI file with a fresh header: nothing of the source's is carried over but its position in space."""
    image = nib.Nifti1Image(voxels_IJK, affine)
    image.header.set_xyzt_units("mm")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as stream:
        stream.write(image.to_bytes())
    write_bytes(path, buffer.getvalue())


def _describe(output: Path, card: ModelCard) -> None:
    try:
        write_json(
            output / "dataset_description.json",
            {
                "Name": f"MS lesions predicted by study {card.study.name}",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "msfl", "Version": __version__, "Description": card.notice}],
                "ModelWeightsSHA256": card.weights_sha256,
            },
        )
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}; choose another --output") from None


def _table(rows: list[PredictedCase]) -> str:
    stream = io.StringIO()
    names = list(PredictedCase.__dataclass_fields__)
    writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "n/a" if value is None else value for name, value in asdict(row).items()})
    return stream.getvalue()
