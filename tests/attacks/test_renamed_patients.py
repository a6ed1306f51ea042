"""A site whose subject folders were renamed: the budget knows its patients by their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from msfl_common.errors import Code, RefusedError
from tests.attacks.deployed_site import Deployed, people, study_of, write_people


@pytest.mark.slow
def test_patients_who_were_renamed_have_no_fresh_budget(tmp_path: Path) -> None:
    cases, policy = people(3, 200), {"max_release": 0.1}
    write_people(tmp_path / "bids", cases)
    Deployed(tmp_path / "bids", study_of(kind="lda"), policy).play()
    write_people(tmp_path / "bids", replace(cases, patients=tuple(f"new{who}" for who in cases.patients)))
    with pytest.raises(RefusedError, match=r"[1-9][0-9]* are given out") as error:
        Deployed(tmp_path / "bids", study_of("second", "lda"), policy).play()
    assert error.value.code is Code.BUDGET_SPENT
