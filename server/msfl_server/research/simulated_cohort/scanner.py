"""What a scanner and a rater make of a brain: resolution, bias field, noise, intensity scale, mask style.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from msfl_server.research.simulated_cohort.contrast import SequenceContrast
from msfl_server.research.simulated_cohort.fields import Grid, Volume, head_grid, smooth_field

FWHM_PER_SIGMA = 2.3548
FAINTEST = 0.15  # height of a lesion's profile in a voxel below which a rater sees none
INT16_WHITE_MATTER = 1000.0  # stored value of white matter at gain 1


@dataclass(frozen=True)
class Scanner:
    """One scanner with its protocol.

    Attributes:
        name: Identifier within the cohort.
        field_strength_t: Magnetic field, tesla.
        contrast: Tissue signals of its sequences.
        gamma: Exponent on the white-matter-normalised signal.
        gain: Factor on the stored values.
        bias: Peak relative strength of the smooth bias field, 0.10-0.40.
        noise: Rician noise, standard deviation as a fraction of white matter, 0.01-0.08.
        slice_thickness_mm: Thickness of the acquired slices.
        psf_mm: Full width at half maximum of the in-plane point spread function.
        stored_spacing_mm: Voxel size of the stored images.
    """

    name: str
    field_strength_t: float
    contrast: SequenceContrast
    gamma: float
    gain: float
    bias: float
    noise: float
    slice_thickness_mm: float
    psf_mm: float
    stored_spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Rater:
    """How a site outlines lesions and strips brains.

    Attributes:
        threshold: Height of a lesion's profile at which the outline is drawn; 0.5 is half height.
        smallest_mm3: Lesions below this volume are not outlined.
        brain_margin_mm: Brain extraction border, positive cuts into the brain.
    """

    threshold: float
    smallest_mm3: float
    brain_margin_mm: float


def draw_scanner(rng: np.random.Generator, name: str, spacing_mm: float, *, thick_slices: bool) -> Scanner:
    """Draw a scanner's style.

    Args:
        rng: Source of randomness.
        name: Identifier within the cohort.
        spacing_mm: Voxel size of the cohort.
        thick_slices: Whether the images are stored on their own grid of thick slices.

    Returns:
        The scanner.
    """
    strong = rng.random() < 0.6
    thickness_mm = float(rng.uniform(3.0, 4.5)) if thick_slices else float(rng.choice([1.0, 1.0, 1.2, 2.0, 3.0]))
    thickness_mm = max(round(thickness_mm, 1), spacing_mm)
    contrast = SequenceContrast(
        flair_gm=float(rng.uniform(1.18, 1.38)),
        flair_csf=float(rng.uniform(0.05, 0.28)),
        flair_lesion=float(rng.uniform(1.0, 1.2)),
        t1w_gm=float(rng.uniform(0.62, 0.82)),
        t1w_csf=float(rng.uniform(0.12, 0.32)),
        t1w_lesion=float(rng.uniform(0.85, 1.05)),
    )
    return Scanner(
        name=name,
        field_strength_t=3.0 if strong else 1.5,
        contrast=contrast,
        gamma=float(np.clip(np.exp(rng.normal(0.0, 0.2)), 0.78, 1.5)),
        gain=float(np.exp(rng.uniform(np.log(0.7), np.log(1.4)))),
        bias=float(rng.uniform(0.10, 0.30 if not strong else 0.40)),
        noise=float(np.exp(rng.uniform(np.log(0.01), np.log(0.045 if strong else 0.07)))),
        slice_thickness_mm=thickness_mm,
        psf_mm=float(rng.uniform(0.5, 1.5)),
        stored_spacing_mm=(spacing_mm, spacing_mm, thickness_mm if thick_slices else spacing_mm),
    )


def draw_rater(rng: np.random.Generator) -> Rater:
    """Draw a site's outlining style; from a little inside half height to a generous voxel outside."""
    return Rater(
        threshold=float(rng.uniform(0.34, 0.50)),
        smallest_mm3=float(rng.choice([3.0, 3.0, 5.0])),
        brain_margin_mm=float(rng.uniform(-0.8, 1.0)),
    )


def acquire(rng: np.random.Generator, signal_DHW: Volume, source: Grid, scanner: Scanner) -> tuple[Volume, Grid]:
    """Scan a noise-free signal.

    Args:
        rng: Source of randomness of this acquisition.
        signal_DHW: Signal on the simulation grid, white matter about 1.
        source: The simulation grid.
        scanner: The scanner; visit jitter is drawn here.

    Returns:
        The stored image, white matter about `INT16_WHITE_MATTER` times the gain, float32 on the stored
        grid, and that grid.
    """
    stored = head_grid(scanner.stored_spacing_mm)
    slices = head_grid((*scanner.stored_spacing_mm[:2], scanner.slice_thickness_mm))
    image = resample(_blurred(signal_DHW, source, scanner), source, slices)
    peak = scanner.bias * rng.uniform(0.6, 1.0)
    bias = smooth_field(rng, slices, 90.0)
    image = image * np.exp(peak * 0.5 * np.clip(bias, -2, 2)).astype(np.float32)
    sigma = scanner.noise * rng.uniform(0.8, 1.25)
    real, imaginary = (sigma * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    image = np.hypot(image + real, imaginary)
    image = image ** np.float32(scanner.gamma * np.exp(rng.normal(0, 0.04)))
    gain = INT16_WHITE_MATTER * scanner.gain * np.exp(rng.normal(0, 0.05))
    return resample(image * np.float32(gain), slices, stored), stored


def resample(image_DHW: Volume, source: Grid, target: Grid) -> Volume:
    """Interpolate linearly from one grid to another; grids share their axes.

    Args:
        image_DHW: Values on `source`.
        source: Grid of the values.
        target: Grid wanted.

    Returns:
        Values on `target`, float32; beyond the source's edge the nearest value.
    """
    if source == target:
        return image_DHW
    axes = zip(target.origin_mm, target.spacing_mm, target.shape, source.origin_mm, source.spacing_mm, strict=True)
    moved = image_DHW
    for to, wide, size, of, step in axes:
        weights = _linear_weights((to + wide * np.arange(size) - of) / step, moved.shape[0])
        _, *rest = moved.shape
        # Interpolate the first axis and move it to the end: after three turns the order is restored.
        moved = (weights @ moved.reshape(moved.shape[0], -1)).reshape(-1, *rest).transpose(1, 2, 0)
    return np.ascontiguousarray(moved)


def _linear_weights(position: NDArray[np.float64], size: int) -> sparse.csr_matrix:
    """Weights (positions, size) of linear interpolation at fractional indices, held at both ends."""
    held = np.clip(position, 0, size - 1)
    low = np.minimum(np.floor(held).astype(int), size - 2)
    weight = (held - low).astype(np.float32)
    rows = np.repeat(np.arange(len(held)), 2)
    columns = np.stack([low, low + 1], 1).ravel()
    values = np.stack([1 - weight, weight], 1).ravel()
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(held), size))


def averaged(image_DHW: Volume, source: Grid, target: Grid) -> Volume:
    """Mean over each target voxel, by a Gaussian of the voxel's width before linear interpolation."""
    ratios = [wide / step for wide, step in zip(target.spacing_mm, source.spacing_mm, strict=True)]
    sigmas = [0.30 * np.sqrt(max(ratio**2 - 1, 0.0)) for ratio in ratios]
    return resample(ndimage.gaussian_filter(image_DHW, sigmas), source, target)


def outline(
    rng: np.random.Generator, extent_DHW: Volume, source: Grid, target: Grid, rater: Rater
) -> NDArray[np.uint8]:
    """Outline lesions as a rater would; of one that is too small for the voxels, the one that shows most of it.

    Args:
        rng: Source of randomness: the hand's unsteadiness.
        extent_DHW: Lesion profile on the simulation grid, 0.5 at the border.
        source: The simulation grid.
        target: Grid of the images.
        rater: The site's style.

    Returns:
        Mask 0/1 on `target`, uint8.
    """
    profile = averaged(extent_DHW, source, target)
    hand = 0.05 * smooth_field(rng, target, 6.0)
    mask = profile > np.clip(rater.threshold + hand, 0.2, 0.8)
    mask |= (profile > FAINTEST) & (profile == ndimage.maximum_filter(profile, 3))
    labels, num_lesions = ndimage.label(mask, np.ones((3, 3, 3)))
    volumes_mm3 = np.bincount(labels.ravel(), minlength=num_lesions + 1) * float(np.prod(target.spacing_mm))
    kept = volumes_mm3 >= rater.smallest_mm3
    kept[0] = False
    return np.asarray(kept[labels], np.uint8)


def strip(
    rng: np.random.Generator, brain_mm_DHW: Volume, source: Grid, target: Grid, rater: Rater
) -> NDArray[np.bool_]:
    """Brain mask (D, H, W) on `target`, with the site's border and patches that an extraction gets wrong."""
    distance = resample(brain_mm_DHW, source, target)
    uneven = 0.7 * smooth_field(rng, target, 10.0) + 0.5 * smooth_field(rng, target, 5.0)
    return np.asarray(distance > rater.brain_margin_mm + uneven)


def _blurred(signal_DHW: Volume, source: Grid, scanner: Scanner) -> Volume:
    """Point spread in plane, slice profile across, and the averaging over a voxel."""
    sigmas = []
    for axis, step in enumerate(source.spacing_mm):
        voxel_mm = scanner.slice_thickness_mm if axis == 2 else scanner.stored_spacing_mm[axis]
        # A Gaussian of 0.3 voxels for the box of the voxel, of which the grid already has a part.
        variance = (0.30**2) * max(voxel_mm**2 - step**2, 0.0)
        if axis < 2:
            variance += (scanner.psf_mm / FWHM_PER_SIGMA) ** 2
        sigmas.append(np.sqrt(variance) / step)
    return np.asarray(ndimage.gaussian_filter(signal_DHW, sigmas), np.float32)
