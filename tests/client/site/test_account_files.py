"""The key of what was given out about patients, and which state folder counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from msfl_client.egress.budget_record import forget_budget
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.egress.ledger_sums import BUDGET_RESET
from msfl_client.site.account_files import KEY_FILE, expect_counted_here
from msfl_client.site.keys import make_key
from msfl_common.config.site import SiteConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.system.files import write_bytes


@dataclass(frozen=True)
class Hospital:
    """One key, and whatever data and state folders its people name."""

    base: Path

    def site(self, state: str = "state", *data: str) -> SiteConfig:
        (self.base / state).mkdir(mode=0o700, exist_ok=True)
        folders = tuple(self.base / one for one in data or ("bids",))
        return SiteConfig(name="here", data=folders, state=self.base / state, key=self.base / "site.key")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    make_key(tmp_path / "site.key", "here")
    expect_counted_here(Hospital(tmp_path).site())
    return Hospital(tmp_path)


def test_another_state_folder_counts_nothing_of_the_same_data(hospital: Hospital) -> None:
    expect_counted_here(hospital.site())
    expect_counted_here(hospital.site("state-2", "bids-2"))
    for other in (hospital.site("state-3"), hospital.site("state-2"), hospital.site("state", "bids", "bids-2")):
        with pytest.raises(RefusedError, match=r"counted in another state folder; name that one under `state`") as no:
            expect_counted_here(other)
        assert no.value.code is Code.BUDGET_SPENT
    assert (hospital.base / "site.key.accounts").stat().st_mode & 0o777 == 0o600
    (hospital.base / "state").rename(hospital.base / "moved")
    expect_counted_here(hospital.site("moved"))


def test_a_copy_of_the_key_in_a_new_state_folder_is_not_noticed(hospital: Hospital) -> None:
    """As the page for data protection officers says."""
    copied = hospital.site("copied")
    write_bytes(copied.state / KEY_FILE, (hospital.base / "state" / KEY_FILE).read_bytes(), secret=True)
    expect_counted_here(copied)
    (hospital.base / "site.key.accounts").unlink()
    expect_counted_here(hospital.site("new"))


def test_a_state_folder_that_was_lost_begins_anew_by_a_persons_word_in_the_ledger(hospital: Hospital) -> None:
    with pytest.raises(InputError, match="nothing was given out"):
        forget_budget(hospital.site())
    new = hospital.site("new")
    assert forget_budget(new) == ("",)
    expect_counted_here(new)
    assert [line.kind for line in read(new.state / LEDGER_FILE)] == [BUDGET_RESET]
    with pytest.raises(RefusedError, match="another state folder"):
        expect_counted_here(hospital.site())


def test_a_simulation_without_a_key_counts_nothing(tmp_path: Path) -> None:
    expect_counted_here(Hospital(tmp_path).site())
    assert not list((tmp_path / "state").iterdir())


def test_a_damaged_mark_is_said(hospital: Hospital) -> None:
    (hospital.base / "site.key.accounts").write_text("{")
    with pytest.raises(RefusedError, match=r"site\.key\.accounts: damaged; restore it from a backup, or remove it"):
        expect_counted_here(hospital.site())
    assert (hospital.base / "state" / KEY_FILE).exists()


def test_a_key_that_cannot_be_read_is_refused_by_name(hospital: Hospital) -> None:
    key = hospital.base / "state" / KEY_FILE
    key.unlink()
    key.mkdir()
    with pytest.raises(RefusedError, match=r"account\.key: "):
        expect_counted_here(hospital.site())
