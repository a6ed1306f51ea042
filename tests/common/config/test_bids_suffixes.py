"""Contrasts by BIDS suffix and entities."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.contrasts import CONTRASTS, anchor_of, contrast_of, facts_of, outlined_on
from msfl_common.config.study import Inputs

ASKED = ("T1w", "ce-gadolinium_T1w", "SWI", "T2starw", "UNIT1", "MTR", "FA", "MD", "T1map", "acq-3d_FLAIR")


def test_any_suffix_and_its_entities_may_be_asked_for() -> None:
    assert Inputs(contrasts=ASKED).channels == ASKED
    assert contrast_of("T1w", {"sub": "1", "ce": "gadolinium"}, ASKED) == "ce-gadolinium_T1w"
    assert contrast_of("T1w", {"sub": "1"}, ASKED) == "T1w"
    assert contrast_of("FLAIR", {"sub": "1"}, ASKED) is None
    assert anchor_of(ASKED) == "T1w"
    assert anchor_of(("FA", "T2starw", "UNIT1")) == "UNIT1"
    assert outlined_on(("T1w", "acq-3d_FLAIR")) == "acq-3d_FLAIR"
    assert facts_of("FA").is_quantity
    assert not facts_of("SWI").is_quantity
    assert {*CONTRASTS} <= {*SUFFIXES}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bold", "no such contrast: bold; there are 24, BIDS suffixes: T1w, FLAIR"),
        ("SWJ", "did you mean swi"),
        ("ce_T1w", "found ce; there are acq, ce"),
        ("ce-gadolinium_ce-no_T1w", "each once"),
        ("earlier-T1w", "those of the task new-lesions"),
    ],
)
def test_a_name_that_is_none_of_bids_is_refused_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Inputs(contrasts=("T1w", name))
