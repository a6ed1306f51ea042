"""What a prediction reads of a folder's tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clinical_site import Tables, classification

from msfl_client.prediction.inputs import read_inputs
from msfl_client.prediction.visits import patients_to_predict
from msfl_common.config.site import Words
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import ModelCard


@pytest.mark.parametrize(("words", "expected"), [(Words(sex={"W": "female"}), {"sex": 0.0}), (None, None)])
def test_words_of_the_site_hold_for_its_predictions(
    tmp_path: Path, words: Words | None, expected: dict[str, float] | None
) -> None:
    tables = Tables(tmp_path / "bids")
    tables.participants(("participant_id", "sex"), ("sub-01", "W"))
    settings = classification(("sex",), column="label")
    card = ModelCard.model_construct(study=StudyConfig(name="a", task="classification", classification=settings))
    known = read_inputs(card, tmp_path, tables.root, tmp_path / "out", "cpu", 1, lambda *_: None, words=words)
    (patient,) = patients_to_predict(known, settings)
    assert (patient.visits[0].visits[-1].clinical if patient.visits else None) == expected
    assert ("say in the site file" in patient.reason) == (words is None)
