"""What a case of single images is called: never a path, and nothing that BIDS names may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_client.data.chosen import Chosen
from msfl_client.data.single_case import case_of
from msfl_common.errors import InputError


@pytest.mark.parametrize(("subject", "visit"), [("../7", "1"), ("7", "../1"), ("a b", "1"), ("7/8", "1"), ("7", "1_x")])
def test_a_name_that_is_no_label_is_refused(tmp_path: Path, subject: str, visit: str) -> None:
    with pytest.raises(InputError, match="expected letters and digits for --subject and --visit"):
        case_of({"FLAIR": tmp_path / "scan.nii.gz"}, Chosen.named([subject], [visit]))
