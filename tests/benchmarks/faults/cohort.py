"""The simulated cohort beside real patients: lesions, contrast, heads, and what one threshold makes of a site.

Targets are of 30 real consensus masks and two real patients (Lesjak et al., Neuroinformatics 2017, doi
10.1007/s12021-017-9348-7, CC-BY), with room for the chance of as many cases; where the scans are at hand, the same
figures of them stand beside. The seeds are none that the cohort was adjusted with.

A median of 24 simulated patients' lesions lies between 45 and 98 where that of all is 67, by chance alone; so numbers
of lesions are those of 4000 patients, of whom masks show such shares as of the patients drawn whole. How bright a
site's lesions are follows its scanner's gamma, .7 to 1.5: at these, real scans have 1.27 to 1.75 (1.39 and 1.51 as
they are), so that single sites are held to that, and the mean of many sites to real scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spaces import vox2out_vox

from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.resampling import resample
from msfl_server.research.simulated_cohort.cases import ScannedVisit, draw_site, simulate_case
from msfl_server.research.simulated_cohort.clinical import SitePrevalence, sample_clinical
from msfl_server.research.simulated_cohort.fields import Volume, head_grid
from msfl_server.research.simulated_cohort.statistics import (
    ZONES,
    LesionStatistics,
    SizeTable,
    lesion_statistics,
    simulate_lesion_mask,
    size_table,
)
from tests.benchmarks.figure import Figure

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "open_ms"
PATIENTS = ("sub-19", "sub-07")
SEED, SPACING_MM = 4021, 2.0
NUM_SITES, CASES_PER_SITE, NUM_TRUE = 3, 8, 24
NUM_SCANNED, NUM_DRAWN = 24, 4000  # sites with a scanner of their own; patients of whom the number of lesions is drawn
THRESHOLDS = np.arange(0.9, 2.5, 0.02)  # times the median of the brain
_QUARTILES = ("first quartile", "median", "third quartile")
# Ranges around the real figures at 1 mm; counts of 24 cases and logarithms of volumes scatter.
_COUNTS, _SINGLES = ((20, 45), (55, 100), (80, 150)), ((7, 14), (16, 30), (40, 75))
_ZONES = ((0.1, 0.35), (0.25, 0.5), (0.03, 0.15), (0.2, 0.5))


def measure() -> list[Figure]:
    """Each figure with its range: of the true lesions at 1 mm, and of images and masks as they are written."""
    scanned = [
        [_scanned(site, case) for case in range(CASES_PER_SITE if site < NUM_SITES else 1)]
        for site in range(NUM_SCANNED)
    ]
    visits = [[visit for _, visit in site] for site in scanned]
    real, first = REAL.is_dir(), visits[:NUM_SITES]
    return [
        *_true_lesions(real),
        *_written_lesions(scanned[:NUM_SITES], real),
        *_contrast(visits),
        *_thresholds(first, real),
        *_heads(first, real),
    ]


def _scanned(site: int, case: int) -> tuple[int, ScannedVisit]:
    """Lesions drawn for a patient, and the first visit."""
    record, visits = simulate_case(draw_site(SEED, site, SPACING_MM), (SEED, site, case), SPACING_MM)
    return record.burden.num_lesions, visits[0]


def quartiles_of_many(drawn: Sequence[int], shown: Sequence[int]) -> list[float]:
    """Quartiles of the lesions that masks of many patients show, from how many of those drawn the masks of some do."""
    rng = np.random.default_rng(SEED)
    many = [sample_clinical(rng, SitePrevalence(0.1, 0.1)).burden.num_lesions for _ in range(NUM_DRAWN)]
    shares = np.array(shown) / np.array(drawn)
    return [float(value) for value in np.percentile(np.multiply.outer(many, shares), (25, 50, 75))]


def best_threshold_dsc(pairs: Sequence[tuple[Volume, np.ndarray]]) -> float:
    """Mean DSC of the one threshold that is best for all of these FLAIR images, in units of each brain's median."""
    found = []
    for flair_DHW, mask_DHW in pairs:
        inside = flair_DHW > 0
        values, lesion = flair_DHW[inside] / np.median(flair_DHW[inside]), mask_DHW[inside] > 0
        bright = [values > threshold for threshold in THRESHOLDS]
        found.append([2 * (lesion & over).sum() / (lesion.sum() + over.sum()) for over in bright])
    return float(np.mean(found, axis=0).max())


def head_correlation(images_DHW: Sequence[Volume]) -> float:
    """Mean correlation of the values of two heads where both are brain, over all pairs."""
    pairs = []
    for one, other in combinations(images_DHW, 2):
        both = (one > 0) & (other > 0)
        pairs.append(np.corrcoef(one[both], other[both])[0, 1])
    return float(np.mean(pairs))


def _true_lesions(real: bool) -> list[Figure]:
    simulated, drawn = [], []
    for case in range(NUM_TRUE):
        mask_DHW, grid = simulate_lesion_mask((SEED, case))
        simulated.append(lesion_statistics(mask_DHW, grid.spacing_mm, grid.affine))
        first = np.random.default_rng(np.random.SeedSequence((SEED, case)).spawn(1)[0])
        drawn.append(sample_clinical(first, SitePrevalence(0.1, 0.1)).burden.num_lesions)
    table, beside = size_table(simulated), _real_table(coarse=False) if real else None
    how = f"{NUM_TRUE} simulated cases, true lesions at 1 mm"
    counts = quartiles_of_many(drawn, [one.num_lesions for one in simulated])
    figures = _sizes("lesions", counts, table, beside, _SINGLES, how)
    figures += _within("lesions: ln(total ml), mean", table.ln_ml_mean, (1.3, 3.0), "2.14", how)
    figures += _within("lesions: ln(total ml), spread", table.ln_ml_spread, (1.0, 1.9), "1.47", how)
    for k, zone in enumerate(ZONES):
        text = f"{beside.zone_fractions[k]:.2f}" if beside else ""
        figures += _within(f"lesions: share {zone}", table.zone_fractions[k], _ZONES[k], text, how)
    return figures


def _written_lesions(scanned: list[list[tuple[int, ScannedVisit]]], real: bool) -> list[Figure]:
    """The masks of the sites whose voxels have 2 mm; thick slices hide small lesions."""
    fine = [one for site in scanned for one in site if one[1].grid.spacing_mm[2] == SPACING_MM]
    found = [_statistics(visit) for _, visit in fine]
    counts = quartiles_of_many([drawn for drawn, _ in fine], [one.num_lesions for one in found])
    beside = _real_table(coarse=True) if real else None
    how = f"{len(fine)} written masks of 2 mm; real ones carried to 2 mm"
    return _sizes("written masks", counts, size_table(found), beside, ((8, 16), (8, 32), (40, 100)), how)


def _sizes(
    what: str,
    counts: Sequence[float],
    table: SizeTable,
    beside: SizeTable | None,
    singles: Sequence[tuple[float, float]],
    how: str,
) -> list[Figure]:
    figures = []
    for k, name in enumerate(_QUARTILES):
        texts = (
            [f"{t.count_quartiles[k]:.0f}" for t in [beside] if t],
            [f"{t.single_mm3_quartiles[k]:.0f}" for t in [beside] if t],
        )
        of_many = f"{NUM_DRAWN} patients, by {how}"
        figures += _within(f"{what}: count, {name}", counts[k], _COUNTS[k], "".join(texts[0]), of_many)
        size = table.single_mm3_quartiles[k]
        figures += _within(f"{what}: single, {name}", size, singles[k], "".join(texts[1]), how, "mm3")
    return figures


def _contrast(visits: list[list[ScannedVisit]]) -> list[Figure]:
    """Lesion over brain; each site has its own scanners."""
    flair = [np.mean([_ratio(visit.flair_DHW, visit.mask_DHW) for visit in site]) for site in visits]
    t1w = [np.mean([_ratio(visit.t1w_DHW, visit.mask_DHW) for visit in site]) for site in visits]
    error = np.std(flair, ddof=1) / np.sqrt(len(flair))
    how = f"{len(visits)} sites, 1 to {CASES_PER_SITE} cases each"
    bounds = ("1.51 and 1.39", "0.93 and 1.02")
    mean_of = f"{how}; standard error {error:.3f}"
    figures = _within(
        "FLAIR, lesion over brain: mean of sites", float(np.mean(flair)), (1.39, 1.51), bounds[0], mean_of
    )
    figures += _within("T1w, lesion over brain: mean of sites", float(np.mean(t1w)), (0.93, 1.02), bounds[1], how)
    for percent in (5, 95):
        name, value = f"FLAIR, lesion over brain: {percent}% of sites below", float(np.percentile(flair, percent))
        figures += _within(name, value, (1.27, 1.75), "1.27 to 1.75 at gammas of .7 to 1.5", how)
    return figures


def _thresholds(visits: list[list[ScannedVisit]], real: bool) -> list[Figure]:
    """What one threshold makes of a site."""
    dsc = [best_threshold_dsc([(visit.flair_DHW, visit.mask_DHW) for visit in site]) for site in visits]
    how = f"{CASES_PER_SITE} cases of each of {NUM_SITES} sites"
    figures = []
    beside = f"{_real_threshold('sub-19'):.2f} of 49.8 ml, {_real_threshold('sub-07'):.2f} of 1.3 ml" if real else ""
    for k, letter in enumerate("abc"):
        name = f"best threshold on FLAIR, DSC: site-{letter}"
        figures.append(Figure(name, dsc[k], "", 0.6, "at_most", beside, how))
    return figures


def _heads(visits: list[list[ScannedVisit]], real: bool) -> list[Figure]:
    figures = []
    for contrast, limits in (("FLAIR", (0.05, 0.25)), ("T1w", (0.15, 0.45))):
        found = [head_correlation([_on_common_grid(_image(v, contrast)) for v in site]) for site in visits]
        beside = ""
        if real:
            files = [nib.load(REAL / p / "anat" / f"{p}_{contrast}.nii.gz") for p in PATIENTS]
            beside = f"{head_correlation([_on_common_grid(file) for file in files]):.2f} of two patients"
        how = f"pairs of a site's {CASES_PER_SITE} heads at 2 mm, mean of {NUM_SITES} sites"
        figures += _within(f"correlation of two heads: {contrast}", float(np.mean(found)), limits, beside, how)
    return figures


def _within(
    name: str, value: float, limits: tuple[float, float], beside: str, how: str, unit: str = ""
) -> list[Figure]:
    """A figure against both ends of its range."""
    text = f"real: {beside}" if beside else ""
    return [
        Figure(f"{name}, at least", value, unit, limits[0], "at_least", text, how),
        Figure(f"{name}, at most", value, unit, limits[1], "at_most", text, how),
    ]


def _statistics(visit: ScannedVisit) -> LesionStatistics:
    return lesion_statistics(visit.mask_DHW, visit.grid.spacing_mm, visit.grid.affine)


def _ratio(image_DHW: Volume, mask_DHW: np.ndarray) -> float:
    return float(image_DHW[mask_DHW > 0].mean() / image_DHW[image_DHW > 0].mean())


def _image(visit: ScannedVisit, contrast: str) -> nib.Nifti1Image:
    return nib.Nifti1Image(visit.flair_DHW if contrast == "FLAIR" else visit.t1w_DHW, visit.grid.affine)


def _on_common_grid(image: nib.Nifti1Image) -> Volume:
    """An image at 2 mm, 0 where it is not all brain: the border's mixed voxels would make any two heads alike."""
    grid = head_grid((SPACING_MM,) * 3)
    values = np.asarray(image.dataobj, np.float32)
    there_DHW, brain_DHW = (
        resample(nib.Nifti1Image(part, image.affine), (grid.shape, grid.affine))
        for part in (values, (values > 0).astype(np.float32))
    )
    return np.where(brain_DHW > 0.95, there_DHW, 0)


def _real_table(*, coarse: bool) -> SizeTable:
    found = []
    for path in sorted((REAL / "derivatives" / "lesion_shapes").glob("*.nii.gz")):
        image = nib.as_closest_canonical(nib.load(path))
        mask_DHW, affine, spacing_mm = np.asarray(image.dataobj) > 0, image.affine, (1.0, 1.0, 1.0)
        if coarse:
            shape, affine = vox2out_vox(image, (SPACING_MM,) * 3)
            mask = nib.Nifti1Image(mask_DHW.astype(np.float32), image.affine)
            mask_DHW, spacing_mm = carry_mask(mask, (tuple(shape), affine)), (SPACING_MM,) * 3
        found.append(lesion_statistics(mask_DHW, spacing_mm, affine))
    return size_table(found)


def _real_threshold(patient: str) -> float:
    flair = np.asarray(nib.load(REAL / patient / "anat" / f"{patient}_FLAIR.nii.gz").dataobj, np.float32)
    name = f"{patient}/anat/{patient}_label-lesion_mask.nii.gz"
    return best_threshold_dsc([(flair, np.asarray(nib.load(REAL / "derivatives" / "lesions" / name).dataobj))])
