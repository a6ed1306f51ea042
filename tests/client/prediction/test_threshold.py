"""A threshold of one's own is taken where the model decides by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from msfl_client.prediction.threshold import caution_of, threshold_of
from msfl_common.errors import InputError


def card_of(*labels: str) -> Any:
    study = SimpleNamespace(classification=object())
    return SimpleNamespace(labels=dict(enumerate(labels)), threshold=0.5, study=study)


def test_a_model_of_three_classes_has_none() -> None:
    card = card_of("RR", "SP", "PP")
    assert threshold_of(card, None) == 0.5
    with pytest.raises(InputError, match="has 3 classes and predicts the most probable one; leave it out"):
        threshold_of(card, 0.4)
    assert not caution_of(card, 0.4)


def test_of_two_classes_it_is_a_probability_and_cautioned_against() -> None:
    card = card_of("0", "1")
    assert threshold_of(card, 0.4) == 0.4
    assert "0.4 is not the study's own, 0.5" in caution_of(card, 0.4)
    assert not caution_of(card, 0.5)
    for wrong in (0.0, 1.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="above 0 and below 1"):
            threshold_of(card, wrong)
