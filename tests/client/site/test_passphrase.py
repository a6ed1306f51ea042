"""A key with a passphrase: from a credential, a file, a variable, a terminal; never from a command line."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.kits import take_over

from msfl_client.connection.supervisor import supervise
from msfl_client.site.keys import has_passphrase, load_key, make_key
from msfl_client.site.passphrase import CREDENTIAL, handed_by_a_person, unlock
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.errors import InputError
from msfl_server.study.folder import init_study
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site

PASSPHRASE = b"correct horse battery"
CLIENT = str(Path(sys.executable).parent / "msfl-client")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteConfig:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    make_key(tmp_path / "site.key", "a", PASSPHRASE)
    return SiteConfig(name="a", data=(tmp_path,), state=tmp_path / "state", key=tmp_path / "site.key")


def secret_file(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


@pytest.mark.slow
def test_the_key_on_disk_opens_with_its_passphrase_alone(site: SiteConfig) -> None:
    assert has_passphrase(site.key)
    assert site.key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" in site.key.read_bytes()
    load_key(site.key, PASSPHRASE)
    with pytest.raises(InputError, match="key_passphrase"):
        load_key(site.key)
    with pytest.raises(InputError, match="wrong"):
        load_key(site.key, b"guess")
    with pytest.raises(InputError, match=r"key_passphrase:.*systemd.*terminal"):
        unlock(site)


@pytest.mark.slow
def test_from_a_variable_which_the_sites_process_is_not_given(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_PASS", PASSPHRASE.decode())
    named = site.model_copy(update={"key_passphrase": "${SITE_PASS}"})
    assert unlock(named) is not None
    handed = handed_by_a_person(named)
    assert handed is not None
    with handed:
        assert os.pread(handed.fileno(), 4096, 0) == PASSPHRASE
    started: list[tuple[list[str], dict[str, str]]] = []

    class Recorded:
        def __init__(self, command: list[str], log: Path, env: dict[str, str], inherits: object) -> None:
            started.append((command, env))

        def stop(self) -> None:
            pass

    monkeypatch.setattr("msfl_client.connection.supervisor.Child", Recorded)
    with pytest.raises(InputError, match="kit"):  # there is none
        supervise(named, tmp_path / "site.yaml")
    (command, environment) = started[0]
    assert PASSPHRASE.decode() not in f"{command} {environment}"
    assert environment == {name: value for name, value in os.environ.items() if name != "SITE_PASS"}
    assert PASSPHRASE.decode() not in named.model_dump_json()
    monkeypatch.delenv("SITE_PASS")
    with pytest.raises(InputError, match="key_passphrase: the environment variable SITE_PASS is not set"):
        unlock(named)
    monkeypatch.setenv("SITE_PASS", "wrong")
    with pytest.raises(InputError, match="wrong") as caught:
        handed_by_a_person(named)
    assert len(str(caught.value).splitlines()) == 1


def test_from_a_file(site: SiteConfig, tmp_path: Path) -> None:
    file = secret_file(tmp_path / "pass", PASSPHRASE + b"\n")
    named = site.model_copy(update={"key_passphrase": file})
    unlock(named)
    assert handed_by_a_person(named) is None
    file.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        unlock(named)
    with pytest.raises(InputError, match="cannot be read"):
        unlock(site.model_copy(update={"key_passphrase": tmp_path / "none"}))


def test_from_systemd(site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret_file(tmp_path / CREDENTIAL, PASSPHRASE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    unlock(site)


def test_a_key_without_one_needs_nothing(site: SiteConfig, tmp_path: Path) -> None:
    make_key(tmp_path / "open.key", "a")
    unlock(site.model_copy(update={"key": tmp_path / "open.key"}))


@pytest.mark.slow
def test_nobody_is_asked_where_there_is_no_terminal(site: SiteConfig) -> None:
    command = [CLIENT, "init", site.state, "--name", "a", "--data", site.data[0], "--passphrase"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, "terminal" in done.stderr) == (2, True)
    assert not site.state.exists()


@pytest.mark.slow
def test_ssh_keygen_takes_the_passphrase_off(site: SiteConfig) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    command = ["ssh-keygen", "-p", "-P", PASSPHRASE.decode(), "-N", "", "-f", str(site.key)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    load_key(site.key)


def at_a_terminal(command: list[str], *typed: bytes) -> tuple[int, int, bytes]:
    """Start a command at a terminal of its own and answer its questions; its process, the terminal, what it wrote."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(command[0], command)
    written = b""
    for answer in typed:
        while not written.rstrip().endswith(b":"):
            written += os.read(terminal, 1024)
        time.sleep(0.2)  # until it has turned the echo off
        os.write(terminal, answer + b"\n")
        written = b""
    return process, terminal, written


@pytest.mark.slow
def test_a_person_types_it_and_it_stands_nowhere(site: SiteConfig, tmp_path: Path) -> None:
    """The real commands: `init` asks twice, `start` once, and hands it to the process that it watches over."""
    folder = tmp_path / "made"
    init = [CLIENT, "init", str(folder), "--name", "a", "--data", str(tmp_path), "--passphrase"]
    process, terminal, _ = at_a_terminal(init, PASSPHRASE, PASSPHRASE)
    while True:
        try:
            assert PASSPHRASE not in os.read(terminal, 4096)
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert has_passphrase(folder / "site.key")

    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    take_over(add_site(study, "a", folder / "site.key.pub"), load_site(folder / "site.yaml"))
    process, terminal, _ = at_a_terminal([CLIENT, "start", str(folder / "site.yaml")], PASSPHRASE)
    log, seen = folder / "state" / "node.log", b""
    end = time.monotonic() + 60
    while not log.exists() or b"cannot be reached" not in log.read_bytes():  # no server runs: the key was unlocked
        assert time.monotonic() < end
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                text = (entry / "cmdline").read_bytes()
                if str(folder).encode() in text:
                    seen += text + (entry / "environ").read_bytes()
            except OSError:
                continue
        time.sleep(0.05)
    assert b"connection.node" in seen
    assert PASSPHRASE not in seen
    assert PASSPHRASE not in log.read_bytes()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(terminal)
