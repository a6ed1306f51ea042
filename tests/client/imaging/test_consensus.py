"""Several raters' masks made into one, and how far they agree."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.imaging.consensus import agreement, mean_agreement, merge_masks


def drawn(*voxels):
    mask = np.zeros((20, 12, 9), dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


LESION = (slice(4, 9), slice(3, 8), slice(2, 6))


def test_a_majority_is_more_than_half() -> None:
    one, two, three = drawn((1, 1, 1), (2, 2, 2)), drawn((1, 1, 1)), drawn((3, 3, 3))
    assert (merge_masks([one, two, three], "majority").mask_DHW == drawn((1, 1, 1))).all()
    assert (merge_masks([one, two], "majority").mask_DHW == (one & two)).all()
    found = merge_masks([one, two, three], "majority")
    assert np.isnan(found.sensitivity_R).all()
    assert len(found.specificity_R) == 3


@pytest.mark.parametrize("method", ["majority", "staple"])
def test_raters_who_drew_nothing_agree_on_nothing(method) -> None:
    found = merge_masks([drawn(), drawn(), drawn()], method)
    assert not found.mask_DHW.any()
    assert mean_agreement([drawn(), drawn()], (1, 1, 1))["lesion_f1"] == 1


def test_staple_by_its_own_iteration() -> None:
    """Warfield's expectation and maximization, written out; of five raters, two are careless."""
    rng, truth = np.random.default_rng(0), drawn(LESION)
    masks = []
    for sensitivity, specificity in ((0.95, 0.99), (0.93, 0.99), (0.9, 0.98), (0.5, 0.9), (0.5, 0.9)):
        chance = rng.random(truth.shape)
        masks.append(np.where(truth, chance < sensitivity, chance > specificity))
    found = merge_masks(masks, "staple")
    votes = np.array(masks, dtype=float).reshape(5, -1)
    prior, told = votes.mean(), votes.mean(axis=0)
    for _ in range(200):
        p, q = (votes * told).sum(axis=1) / told.sum(), ((1 - votes) * (1 - told)).sum(axis=1) / (1 - told).sum()
        one = prior * np.prod(np.where(votes, p[:, None], 1 - p[:, None]), axis=0)
        other = (1 - prior) * np.prod(np.where(votes, 1 - q[:, None], q[:, None]), axis=0)
        told = one / (one + other)
    np.testing.assert_allclose(found.sensitivity_R, p, atol=0.02)
    np.testing.assert_allclose(found.specificity_R, q, atol=0.02)
    assert (found.mask_DHW != (told > 0.5).reshape(truth.shape)).mean() < 0.002
    assert agreement(found.mask_DHW, truth, (1, 1, 1))["dsc"] > agreement(masks[0], truth, (1, 1, 1))["dsc"]


def test_agreement_is_the_mean_of_every_two_raters() -> None:
    one, two = drawn(LESION), drawn((slice(4, 9), slice(3, 8), slice(2, 4)))
    figures = mean_agreement([one, one, two], (1, 1, 1))
    assert figures["dsc"] == pytest.approx((1 + 2 * (2 * 50 / 150)) / 3)
    assert figures["lesion_f1"] == 1
