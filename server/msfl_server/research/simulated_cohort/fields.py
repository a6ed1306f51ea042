"""Grids in MNI space and smooth random fields on them.

Legend: D, H, W are voxels towards right, anterior and superior (RAS); N points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Volume = NDArray[np.float32]

# Millimetres of MNI space that hold every simulated head, lower and upper corner (R, A, S).
FIELD_OF_VIEW_MM = ((-80.0, 80.0), (-116.0, 84.0), (-72.0, 88.0))


@dataclass(frozen=True)
class Grid:
    """A regular RAS grid without rotation.

    Attributes:
        shape: Voxels towards right, anterior and superior.
        spacing_mm: Edge lengths of a voxel.
        origin_mm: MNI position of the centre of voxel (0, 0, 0).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Matrix (4, 4) from voxel indices to MNI millimetres."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    def axes_mm(self) -> tuple[Volume, Volume, Volume]:
        """Positions along each axis in MNI millimetres, shaped to broadcast over a volume."""
        x, y, z = (
            (origin + step * np.arange(size)).astype(np.float32)
            for origin, step, size in zip(self.origin_mm, self.spacing_mm, self.shape, strict=True)
        )
        return x[:, None, None], y[None, :, None], z[None, None, :]


def head_grid(spacing_mm: tuple[float, float, float]) -> Grid:
    """Cover the field of view with voxels of the given size.

    Args:
        spacing_mm: Edge lengths of a voxel (R, A, S).

    Returns:
        The grid; its first voxel begins at the lower corner of the field of view.
    """
    sizes = [round((high - low) / step) for (low, high), step in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True)]
    origins = [low + step / 2 for (low, _), step in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True)]
    return Grid((sizes[0], sizes[1], sizes[2]), spacing_mm, (origins[0], origins[1], origins[2]))


def smooth_field(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Volume:
    """Draw a stationary Gaussian random field of about unit variance.

    White noise on knots `scale_mm` apart is interpolated by uniform cubic B-splines (Unser 1999,
    doi 10.1109/79.799930), axis by axis with sparse matrices: fast, and the same on every machine.

    Args:
        rng: Source of randomness.
        grid: Where to evaluate the field.
        scale_mm: Distance of the knots; details are about twice as wide.

    Returns:
        The field, float32 (D, H, W).
    """
    bases = _bases(rng, grid, scale_mm)
    knots = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    return _interpolated(knots / np.float32(0.479**1.5), bases)


def banded_field(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Volume:
    """Draw a field as `smooth_field` does, but without what is slow: details are all of about one size.

    Args:
        rng: Source of randomness.
        grid: Where to evaluate the field.
        scale_mm: Distance of the knots; a period is about four of them.

    Returns:
        The field, float32 (D, H, W).
    """
    bases = _bases(rng, grid, scale_mm)
    knots = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    return _interpolated(knots - ndimage.gaussian_filter(knots, 0.9, mode="wrap"), bases)


def _bases(rng: np.random.Generator, grid: Grid, scale_mm: float) -> list[sparse.csr_matrix]:
    """Spline weights along each axis, shifted at random."""
    return [
        _spline_basis(size, step / scale_mm, float(rng.random()))
        for size, step in zip(grid.shape, grid.spacing_mm, strict=True)
    ]


def _interpolated(knots: Volume, bases: list[sparse.csr_matrix]) -> Volume:
    """Values between knots, one axis after the other."""
    field = knots
    for basis in bases:
        num_knots, *rest = field.shape
        # Interpolate the first axis and move it to the end: after three turns the order is restored.
        field = (basis @ field.reshape(num_knots, -1)).reshape(-1, *rest).transpose(1, 2, 0)
    return np.ascontiguousarray(field)


def _spline_basis(size: int, knots_per_voxel: float, phase: float) -> sparse.csr_matrix:
    """Weights (size, knots) of the cubic B-splines at each voxel along one axis."""
    position = phase + knots_per_voxel * np.arange(size)
    first = np.floor(position).astype(int)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    columns = first[:, None] + np.arange(4)
    rows = np.repeat(np.arange(size), 4)
    return sparse.csr_matrix(
        (weights.ravel().astype(np.float32), (rows, columns.ravel())), shape=(size, int(columns.max()) + 1)
    )
