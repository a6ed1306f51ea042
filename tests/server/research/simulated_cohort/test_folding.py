"""Folds of a simulated cortex: each person's own, upright on the surface, wider with atrophy."""

import numpy as np
import pytest
from scipy import ndimage

from msfl_server.research.simulated_cohort.fields import Volume, banded_field, head_grid, smooth_field
from msfl_server.research.simulated_cohort.folding import pial_distance

GRID = head_grid((2.5, 2.5, 2.5))


def _ball() -> tuple[tuple[Volume, Volume, Volume], Volume]:
    """Positions, and the distance to the surface of a ball of 60 mm."""
    x, y, z = (axis + np.zeros(GRID.shape, np.float32) for axis in GRID.axes_mm())
    return (x, y, z), (60 - np.sqrt(x**2 + (y + 16) ** 2 + (z - 8) ** 2)).astype(np.float32)


def _folds(seed: int, atrophy: float = 0.0) -> tuple[Volume, Volume]:
    mni_mm, surface_mm = _ball()
    pial_mm, _ = pial_distance(np.random.default_rng(seed), GRID, mni_mm, surface_mm, atrophy=atrophy)
    return pial_mm, surface_mm


def test_a_banded_field_has_nothing_slow() -> None:
    fields = [draw(np.random.default_rng(3), GRID, 7.5) for draw in (smooth_field, banded_field)]
    slow = [ndimage.gaussian_filter(field, 8).std() / field.std() for field in fields]
    assert slow[1] < 0.4 * slow[0]


def test_two_people_share_no_sulci() -> None:
    (one, surface_mm), (other, _), (again, _) = _folds(1), _folds(2), _folds(1)
    shell = (surface_mm > 4) & (surface_mm < 10)
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one[shell], other[shell])[0, 1]) < 0.15


def test_sulci_stand_upright_and_end() -> None:
    pial_mm, surface_mm = _folds(1)
    open_share = [(pial_mm[(surface_mm > a) & (surface_mm < a + 2)] < 1).mean() for a in (3, 8, 18)]
    assert open_share[0] > 0.08
    assert open_share[1] == pytest.approx(open_share[0], abs=0.1)
    assert open_share[2] < 0.4 * open_share[0]


def test_atrophy_widens_sulci() -> None:
    shell = (_folds(1)[1] > 3) & (_folds(1)[1] < 12)
    shares = [(_folds(1, atrophy)[0][shell] < 0).mean() for atrophy in (-1.0, 0.0, 2.0)]
    assert shares[0] < shares[1] < shares[2]
