"""Masks of seeds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from msfl_common.secure_aggregation.masks import add_masks


@pytest.mark.parametrize(
    ("limbs", "length", "digest"),
    [
        (1, 70001, "ad2a675c551fa4d24dbdfec04f72fd4dfb08ec6884fb2d2365101106ee6d1ed1"),
        (4, 301, "95d7e80908ed9bb78bfd25487ce059302984336ac2ba6beed306cc9f4a11e956"),
    ],
)
def test_masks_are_the_same_in_every_version(limbs: int, length: int, digest: str) -> None:
    """Sites of two versions are in one sum: another stream of the same seed would leave noise in it, unnoticed."""
    words = np.arange(limbs * length, dtype=np.uint64).reshape(limbs, length)
    add_masks(words, [bytes([seed]) * 32 for seed in range(3)], [bytes([seed]) * 32 for seed in range(3, 5)])
    assert hashlib.sha256(words.astype("<u8").tobytes()).hexdigest() == digest
