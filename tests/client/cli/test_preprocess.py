"""`msfl-client preprocess` of some patients."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.preprocessing import site as preprocessing
from msfl_client.preprocessing.site import Outcome
from msfl_client.site.folder import init_site


def test_those_that_are_named_and_no_others(site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def all_of(waiting, *_):  # type: ignore[no-untyped-def]
        asked.extend(case.key for case in waiting)
        return [Outcome(case.key, "left out", "no brain") for case in waiting]

    monkeypatch.setattr(preprocessing, "_all_of", all_of)
    site_file = init_site(tmp_path / "site", "a", site.root, None).site_file
    done = run_main(main, "preprocess", site_file, "--subject", "02")
    assert (asked, done.returncode) == (["sub-02"], 2)
    assert "none of 1 cases can be used; sub-02: no brain" in done.stderr
    wrong = run_main(main, "preprocess", site_file, "--subject", "2")
    assert (wrong.returncode, asked) == (2, ["sub-02"])
    assert "no such patient: sub-2; did you mean sub-02?" in wrong.stderr
