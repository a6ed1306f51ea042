"""Contrasts that do not lie on one another, on two real patients: predicted as if they did, or refused, never silent.

Lesjak et al., Neuroinformatics 2017, doi 10.1007/s12021-017-9348-7 (CC-BY). The model is of simulated sites alone.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msfl_client.data.bids import find_cases
from msfl_client.data.case_checks import check_case
from msfl_client.prediction.lesions import predict_folder
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.errors import CohortError
from msfl_common.metrics.segmentation import segmentation_metrics
from msfl_server.research.simulated_cohort import make_cohort
from tests.benchmarks.demo_model import demo_model
from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = REPOSITORY.parent / "shared" / "data" / "open_ms"
PATIENTS = ("sub-07", "sub-19")
DEGREES, SHIFTS_MM = (2.0, 5.0, 10.0, 15.0), (3.0, 10.0, 20.0, 40.0)
NUM_SITES, SEED = 16, 2026
RULES = frozenset({"alignment", "misaligned", "mirrored", "mask-place", "mask-side"})


def measure() -> list[Figure]:
    """Loss of DSC and silence under each displacement, and false alarms where nothing is displaced."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        alarms = _alarms_of_simulated(base / "aligned")
        if not REAL.is_dir():
            return [*alarms, Figure("misaligned contrasts", None, "", None, "at_least", "", "open_ms is not at hand")]
        return (
            alarms
            + _alarms_of_real(base / "shrunk")
            + [figure for patient in PATIENTS for figure in _displaced(patient, demo_model(), base)]
        )


def _displaced(patient: str, model: Path, base: Path) -> list[Figure]:
    """Every displacement of one patient's T1w, each with an axis and a direction of its own."""
    generator = np.random.default_rng(SEED + PATIENTS.index(patient))
    matrices = {"aligned": np.eye(4)}
    flair = nib.load(REAL / patient / "anat" / f"{patient}_FLAIR.nii.gz")
    middle = nib.affines.apply_affine(flair.affine, ndimage.center_of_mass(np.asarray(flair.dataobj) > 0))
    for degrees in DEGREES:
        matrices[f"{degrees:g} degrees"] = _rigid(generator, middle, degrees, 0)
    for mm in SHIFTS_MM:
        matrices[f"{mm:g} mm"] = _rigid(generator, middle, 0, mm)
    for degrees, mm in zip(DEGREES, SHIFTS_MM, strict=True):
        matrices[f"{degrees:g} degrees and {mm:g} mm"] = _rigid(generator, middle, degrees, mm)
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 2 * middle[0]
    matrices["mirrored"] = mirror
    results = {
        name: _predicted(patient, matrix, model, base / f"{patient}-{name}") for name, matrix in matrices.items()
    }
    whole = results.pop("aligned")
    assert whole[0] is not None
    losses = [whole[0] - dsc for dsc, _ in results.values() if dsc is not None]
    silent = [name for name, (dsc, said) in results.items() if dsc is not None and not said]
    wrong = [name for name in silent if abs(whole[0] - (results[name][0] or 0)) > 0.03]
    refused = [name for name, (dsc, _) in results.items() if dsc is None]
    how = f"{patient}, DSC {whole[0]:.3f} aligned; {len(results)} displacements of the T1w in its header; "
    return [
        Figure(f"{patient}: most DSC lost", max(losses), "", 0.03, "at_most", "aligned", how + "where not refused"),
        Figure(f"{patient}: silent", float(len(silent)), "", 0.0, "at_most", "", how + (", ".join(silent) or "none")),
        Figure(f"{patient}: silent and wrong", float(len(wrong)), "", 0.0, "at_most", "", how + "by over .03"),
        Figure(f"{patient}: refused", float(len(refused)), "", None, "at_least", "", how + ", ".join(refused)),
        Figure(f"{patient}: said of the aligned", float(whole[1]), "", 0.0, "at_most", "", how),
    ]


def _rigid(generator: np.random.Generator, middle: np.ndarray, degrees: float, mm: float) -> np.ndarray:
    axis, direction = (vector / np.linalg.norm(vector) for vector in generator.normal(size=(2, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(axis * degrees, degrees=True).as_matrix()
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + mm * direction
    return matrix


def _predicted(patient: str, matrix: np.ndarray, model: Path, base: Path) -> tuple[float | None, bool]:
    """DSC, or None where the case was refused, and whether the table says anything of it."""
    source = base / "bids"
    shutil.copytree(REAL / patient, source / patient)
    path = source / patient / "anat" / f"{patient}_T1w.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), matrix @ image.affine), path)
    try:
        (row,) = predict_folder(model, source, base / "out", "cpu")
    except CohortError:  # the only case is refused
        return None, True
    said = any("another grid" not in warning for warning in row.warnings)  # which is said of aligned ones, too
    name = f"{patient}/anat/{patient}_label-lesion_mask.nii.gz"
    reference, found = (nib.load(folder / name) for folder in (REAL / "derivatives" / "lesions", base / "out"))
    a, b, c = (float(size) for size in reference.header.get_zooms())
    dsc = segmentation_metrics(np.asarray(found.dataobj) > 0, np.asarray(reference.dataobj) > 0, (a, b, c))["dsc"]
    return dsc, said


def _said(source: Path, rules: frozenset[str] = RULES) -> list[str]:
    """The cases of which check says that they do not lie right, each with what it says."""
    inputs = Inputs()
    cases, _ = find_cases(SiteConfig(name="here", data=(source,), state=source / "state"), inputs.contrasts)
    return [
        f"{case.key}: {'; '.join(texts)}"
        for case in cases
        if (texts := [one.text for one in check_case(case, inputs, case.mask is not None) if one.rule in rules])
    ]


def _alarms_of_simulated(folder: Path) -> list[Figure]:
    """Sites with scanners of their own, of 1, 2 and 3 mm, every third with thick slices; then with mirrored masks."""
    said, found, num_cases = [], 0, 0
    for spacing_mm in (1.0, 2.0, 3.0):
        cohort = folder / f"{spacing_mm:g}"
        num_sites = NUM_SITES if spacing_mm > 1 else NUM_SITES // 4
        make_cohort(cohort, num_sites=num_sites, cases_per_site=1, seed=SEED, spacing_mm=spacing_mm)
        for site in sorted(cohort.glob("site-*")):
            num_cases += len(list(site.glob("sub-*/ses-*")))
            said += _said(site)
            found += _mirrored_masks(site)
    how = f"{num_cases} visits at {NUM_SITES * 2 + NUM_SITES // 4} simulated sites; " + "; ".join(said[:2])
    return [
        Figure("false alarms, simulated", len(said) / num_cases, "", 0.01, "at_most", "", how),
        Figure("mirrored masks, simulated: refused", found / num_cases, "", 0.9, "at_least", "", how),
    ]


def _mirrored_masks(source: Path) -> int:
    """How many of a folder's masks check refuses once each is exchanged with its mirror image."""
    for path in source.rglob("*_mask.nii.gz"):
        image = nib.load(path)
        across = int(np.argmax(np.abs(image.affine[0, :3])))
        nib.save(nib.Nifti1Image(np.flip(np.asarray(image.dataobj), across), image.affine), path)
    return len(_said(source, frozenset({"mask-side"})))


def _alarms_of_real(folder: Path) -> list[Figure]:
    """The real patients as they are, and with one contrast's brain drawn smaller, or in slices of 4 mm."""
    said, num_cases = [], 0
    for patient in PATIENTS:
        for changed in ("T1w", "FLAIR"):
            for shrunk_mm, slices_mm in ((0, 1), (2, 1), (4, 1), (0, 4), (2, 4)):
                source = folder / f"{patient}-{changed}-{shrunk_mm}-{slices_mm}"
                shutil.copytree(REAL / patient, source / patient)
                _redraw(source / patient / "anat" / f"{patient}_{changed}.nii.gz", shrunk_mm, slices_mm)
                said += _said(source)
                num_cases += 1
    how = f"{num_cases} variants of {len(PATIENTS)} patients: one brain smaller by 0-4 mm, slices of 1 or 4 mm; "
    return [Figure("false alarms, real", len(said) / num_cases, "", 0.0, "at_most", "", how + "; ".join(said[:2]))]


def _redraw(path: Path, shrunk_mm: float, slices_mm: int) -> None:
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels = voxels * (ndimage.distance_transform_edt(voxels > 0) > shrunk_mm)
    kept = voxels[:, :, ::slices_mm] > 0
    thick = ndimage.uniform_filter1d(voxels, slices_mm, axis=2)[:, :, ::slices_mm] * kept
    shift = np.eye(4)
    shift[2, 3] = -0.5 if slices_mm % 2 == 0 else 0.0  # where the mean of an even number of slices lies
    nib.save(nib.Nifti1Image(thick, image.affine @ shift @ np.diag([1, 1, slices_mm, 1])), path)
