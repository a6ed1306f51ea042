"""The site's key: made secret, read only when it is, of one kind."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from msfl_client.site.keys import load_key, make_key, public_key_file, public_line
from msfl_common.errors import InputError
from msfl_common.system import files


def test_a_key_is_secret_and_its_public_key_lies_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "site.key"
    line = make_key(path, "hospital-a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert line.endswith(" hospital-a")
    assert public_key_file(path).read_text() == line + "\n"
    assert public_line(load_key(path)) + " hospital-a" == line


@pytest.mark.slow
def test_ssh_keygen_reads_it(tmp_path: Path) -> None:
    line = make_key(tmp_path / "site.key", "a")
    try:
        done = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "site.key"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert done.stdout.decode().split()[:2] == line.split()[:2]


def test_it_is_secret_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", look)
    make_key(tmp_path / "site.key", "a")
    assert stat.S_IMODE(modes[0]) == 0o600


@pytest.mark.parametrize("name", ["site.key", "site.key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name}: is there already; keep it"):
        make_key(tmp_path / "site.key", "a")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    make_key(path, "a")
    path.chmod(mode)
    with pytest.raises(InputError, match=rf"mode {mode:04o}\); run `chmod 600 {path}`"):
        load_key(path)
    path.chmod(0o400)
    load_key(path)


def test_no_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; make one with `msfl-client init`"):
        load_key(tmp_path / "site.key")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-t", "ecdsa", "-b", "384", "-N", "secret"], "key_passphrase"),
        (["-t", "ecdsa", "-b", "256", "-N", ""], "expected an ecdsa-sha2-nistp384 key"),
        (["-t", "ed25519", "-N", ""], "expected an ecdsa-sha2-nistp384 key"),
    ],
)
def test_keys_that_do_not_do(tmp_path: Path, arguments: list[str], text: str) -> None:
    try:
        subprocess.run(["ssh-keygen", "-q", "-f", tmp_path / "site.key", *arguments], check=True)
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    with pytest.raises(InputError, match=text):
        load_key(tmp_path / "site.key")


def test_a_damaged_key(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    make_key(path, "a")
    for content in (b"", b"text", path.read_bytes()[:200], public_key_file(path).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no OpenSSH private key, or damaged"):
            load_key(path)
