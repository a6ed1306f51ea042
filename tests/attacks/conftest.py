"""Fixtures that several files of attacks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_server.study.paths import StudyFolder
from tests.attacks.ledger_parties import Parties, make_study, site_of
from tests.attacks.lies import Recordings
from tests.attacks.recorded import (
    make_patients,
)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Rounds of every kind of study."""
    folder = tmp_path_factory.mktemp("recorded")
    return Recordings(folder, make_patients(folder), {})


@pytest.fixture(scope="session")
def ledger_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two sites, `here` and `there`, whose ledgers are attacked."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, "here", "there")
    return folder


@pytest.fixture
def parties(ledger_base: Path, tmp_path: Path) -> Parties:
    """Five messages, of which four are countersigned at the site."""
    (ledger_base / "pilot" / "run" / "ledger_heads.jsonl").unlink(missing_ok=True)
    made = Parties(site_of(ledger_base, "here", tmp_path / "state"), StudyFolder(ledger_base / "pilot"))
    made.play(5)
    assert made.verify().countersigned.number == 4
    return made
