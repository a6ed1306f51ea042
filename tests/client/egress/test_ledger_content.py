"""Keys of a data protection officer."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_client.egress.ledger_content import make_officer_key, read_recipient
from msfl_common.errors import InputError

pytestmark = pytest.mark.slow

PASSPHRASE = "a long passphrase of the officer"


def test_a_key_is_made_once_and_for_the_officer_alone(tmp_path: Path) -> None:
    made = make_officer_key(tmp_path / "officer.key", PASSPHRASE)
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert str(read_recipient(made.public_key_file)) == made.public_key
    with pytest.raises(InputError, match="is there already"):
        make_officer_key(tmp_path / "officer.key", PASSPHRASE)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/officer\.key: cannot be written: .*; name another folder"):
        make_officer_key(tmp_path / "file" / "officer.key", PASSPHRASE)
