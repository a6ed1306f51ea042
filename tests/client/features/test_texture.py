"""Co-occurrence of grey levels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.features.texture import NUM_LEVELS, RANGE, glcm_features

EVERYWHERE = np.ones((20, 20, 3), bool)


def test_an_even_tissue_has_no_texture() -> None:
    found = glcm_features(np.full((20, 20, 3), 50, np.float32), EVERYWHERE)
    assert found["contrast"] == 0
    assert found["homogeneity"] == 1
    assert found["entropy"] == 0


def test_stripes_by_hand() -> None:
    # Slices of stripes one voxel wide, at two levels that lie two apart, as often each.
    step = (RANGE[1] - RANGE[0]) / NUM_LEVELS
    stripes_DHW = np.where(np.arange(20) % 2, 1 + 1.5 * step, 1 - 0.5 * step)[:, None, None] * np.ones((20, 20, 3))
    stripes_DHW[0, 0, 0] = 1.0  # the median is then one of the two, or between them
    stripes_DHW /= np.median(stripes_DHW)
    found = glcm_features(stripes_DHW.astype(np.float32), EVERYWHERE)
    across, along = 19 * 20 + 2 * 19 * 19, 20 * 19  # pairs with another level, and with the same
    assert found["contrast"] == pytest.approx(4 * across / (across + along), rel=0.02)
    assert found["correlation"] < -0.4


def test_what_is_outside_of_the_tissue_is_not_seen() -> None:
    rng = np.random.default_rng(0)
    image_DHW = rng.normal(100, 5, (20, 20, 3)).astype(np.float32)
    tissue_DHW = EVERYWHERE.copy()
    tissue_DHW[:, 10:] = False
    other_DHW = np.where(tissue_DHW, image_DHW, 1e6).astype(np.float32)
    assert glcm_features(image_DHW, tissue_DHW) == glcm_features(other_DHW, tissue_DHW)


def test_too_little_tissue_or_signal_has_no_features() -> None:
    assert glcm_features(np.ones((20, 20, 3), np.float32), np.zeros_like(EVERYWHERE)) == {}
    assert glcm_features(np.zeros((20, 20, 3), np.float32), EVERYWHERE) == {}
