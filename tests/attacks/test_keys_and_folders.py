"""Attacks on what a site or a study owns: its folders, the authority's key, the server's key."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from msfl_client.connection.server_trust import trust_of
from msfl_client.site.kit_approval import kit_to_use
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.errors import InputError
from msfl_common.system.files import check_private, private_folder
from msfl_common.trust.kit import (
    read_kit,
)
from msfl_server.cli.main import main as server_main
from msfl_server.study.folder import init_study, open_study, renew_certificate
from msfl_server.study.paths import StudyFolder
from tests.attacks.kit_study import SERVER, join, refused, site, site_file, study, tree
from tests.commands import run_main
from tests.kits import private_key

__all__ = ["site", "site_file", "study"]


@pytest.mark.parametrize("what", ["a link", "other accounts may enter", "no folder", "belongs to another account"])
def test_a_state_folder_that_is_not_the_sites_own_is_refused(site_file: Path, tmp_path: Path, what: str) -> None:
    state = site_file.parent / "state"
    match what:
        case "a link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            state.symlink_to(tmp_path / "elsewhere")
        case "no folder":
            state.write_text("")
        case "other accounts may enter":
            state.mkdir()
            state.chmod(0o755)
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            state.mkdir(mode=0o700)
            os.chown(state, 12_345, 12_345)
    mode = state.stat().st_mode
    with pytest.raises(InputError) as caught:
        private_folder(load_site(site_file).state)
    assert what in str(caught.value)
    assert state.stat().st_mode == mode
    assert list(tmp_path.glob("elsewhere/*")) == []


def test_a_part_of_the_states_path_that_is_a_link_is_refused(site_file: Path, tmp_path: Path) -> None:
    site_file.write_text(site_file.read_text().replace("state: state", "state: deep/er/state"))
    (site_file.parent / "deep").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"deep: is a link"):
        load_site(site_file)


def test_a_study_folder_that_others_may_enter_is_refused(study: StudyFolder, tmp_path: Path) -> None:
    study.root.chmod(0o750)
    with pytest.raises(InputError, match=r"mode 0750\); run `chmod 700"):
        open_study(study.root)
    study.root.chmod(0o700)
    (tmp_path / "link").symlink_to(study.root)
    with pytest.raises(InputError, match="is a link"):
        check_private(open_study(tmp_path / "link").root)


def test_starting_a_study_never_needs_the_authoritys_key(study: StudyFolder, site: SiteConfig, tmp_path: Path) -> None:
    study.ca_key.rename(tmp_path / "away.key")
    study.study_file.write_text(study.study_file.read_text().replace("seed: 0", "seed: 7"))
    refused(run_main(server_main, "renew-kits", study.root), "name the file with --ca-key")
    done = run_main(server_main, "renew-kits", study.root, "--ca-key", tmp_path / "away.key", "--json")
    assert json.loads(done.stdout)["sites"] == ["a"]
    assert read_kit(study.kit("a")).study.seed == 7
    source = Path(sys.modules["msfl_server.cli.federation"].__file__ or "").read_text()
    assert not {"ca_key", "authority_key", "refresh_kits"} & set(source.replace("(", " ").split())


def test_the_authoritys_key_leaves_the_machine_and_is_encrypted(tmp_path: Path, site_file: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    options = ["--host", "localhost", "--offline-ca", tmp_path / "usb", "--passphrase-file", secret]
    refused(run_main(server_main, "init", tmp_path / "trial", *options), "other accounts may use it")
    secret.chmod(0o600)
    assert run_main(server_main, "init", tmp_path / "trial", *options).returncode == 0
    key = tmp_path / "usb" / "ca.key"
    assert b"ENCRYPTED" in key.read_bytes()
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(key.read_bytes(), None)
    study = open_study(tmp_path / "trial")
    assert not study.ca_key.exists()
    assert not any(b"ENCRYPTED" in content for content in tree(study.root).values())
    add = ["add-site", study.root, "a", "--public-key", site_file.parent / "site.key.pub"]
    refused(run_main(server_main, *add), "cannot be read")
    refused(run_main(server_main, *add, "--ca-key", key), "there is no terminal; use --passphrase-file")
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("another horse battery\n")
    refused(run_main(server_main, *add, "--ca-key", key, "--passphrase-file", wrong), "the passphrase is wrong")
    assert run_main(server_main, *add, "--ca-key", key, "--passphrase-file", secret).returncode == 0
    assert join(study.kit_archive("a"), site_file, "--yes").returncode == 0


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[tuple[str, int]]:
    """A server that shakes hands and closes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                continue

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield listening.getsockname()
    finally:
        listening.close()


def shake_hands(context: ssl.SSLContext, address: tuple[str, int]) -> None:
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain, server_hostname="localhost"):
        pass


def test_a_stolen_server_key_is_of_no_use_against_a_site_with_the_new_kit(
    study: StudyFolder, site: SiteConfig, site_file: Path, tmp_path: Path
) -> None:
    stolen = [tmp_path / "server.crt", tmp_path / "server.key"]
    for file in stolen:
        shutil.copy(study.root / "pki" / file.name, file)
    old_kit = trust_of(kit_to_use(site))
    renew_certificate(study, new_key=True)
    assert private_key(study.server_key).public_key() != private_key(stolen[1]).public_key()
    assert "kit.server_since" in join(study.kit_archive("a"), site_file, "--yes").stdout
    new_kit = trust_of(kit_to_use(site))
    with tls_server(*stolen) as address:
        shake_hands(old_kit, address)
        with pytest.raises(ssl.SSLCertVerificationError, match="given this certificate up"):
            shake_hands(new_kit, address)
    with tls_server(study.server_certificate, study.server_key) as address:
        shake_hands(new_kit, address)
        shake_hands(old_kit, address)
    renew_certificate(study)  # an ordinary renewal leaves kits good
    with tls_server(study.server_certificate, study.server_key) as address:
        shake_hands(new_kit, address)


def test_another_authority_of_the_same_name_is_not_trusted(site: SiteConfig, tmp_path: Path) -> None:
    impostor = init_study(tmp_path / "impostor" / "pilot", SERVER)
    context = trust_of(kit_to_use(site))
    with tls_server(impostor.server_certificate, impostor.server_key) as address, pytest.raises(ssl.SSLError):
        shake_hands(context, address)
