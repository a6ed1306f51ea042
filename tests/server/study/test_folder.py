"""The study folder: made whole or not at all, sites added and removed, certificates renewed."""

from __future__ import annotations

import stat
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from msfl_client.site.keys import make_key
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.trust.kit import load_kit, read_certificate
from msfl_server.study import folder as study_folder
from msfl_server.study.certificates import Pair, expires_in_days, issue_server_certificate, make_authority
from msfl_server.study.folder import certificate_warning, init_study, list_sites, open_study, renew_certificate
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig, load_server
from msfl_server.study.site_keys import read_public_key
from msfl_server.study.sites import add_site, refresh_kits, remove_site

SERVER = ServerConfig(hosts=("fl.example.org",), public_port=443)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return init_study(tmp_path / "pilot", SERVER)


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    make_key(tmp_path / "site.key", "a")
    return tmp_path / "site.key.pub"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_init_makes_everything_and_secrets_are_secret(study: StudyFolder) -> None:
    assert load_study(study.study_file) == StudyConfig(name="pilot")
    assert load_server(study.server_file) == SERVER
    assert sorted(files(study.root)) == [
        "pki/ca.crt", "pki/ca.key", "pki/server.crt", "pki/server.key", "pki/server.since", "server.yaml", "study.yaml",
    ]  # fmt: skip
    for secret in (study.ca_key, study.server_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert list_sites(open_study(study.root)) == []
    assert certificate_warning(study) is None


def test_a_changed_study_needs_new_kits_but_other_rounds_do_not(study: StudyFolder, public_key: Path) -> None:
    add_site(study, "a", public_key)
    text = study.study_file.read_text()
    study.study_file.write_text(text.replace("num_rounds: 10", "num_rounds: 99"))
    assert refresh_kits(study) == []
    study.study_file.write_text(text.replace("seed: 0", "seed: 7"))
    assert refresh_kits(study) == ["a"]
    assert load_study(study.kit("a") / "study.yaml").seed == 7
    assert refresh_kits(study) == []


def test_others_cannot_enter_a_study_folder(study: StudyFolder) -> None:
    assert stat.S_IMODE(study.root.stat().st_mode) == 0o700


@pytest.mark.slow
def test_openssl_agrees(study: StudyFolder) -> None:
    command = ["openssl", "verify", "-x509_strict", "-CAfile", study.ca_certificate, study.server_certificate]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert done.returncode == 0, done.stderr


def test_init_keeps_a_given_study_to_the_letter(tmp_path: Path) -> None:
    text = "# ours\nname: trial\nrounds: {num_rounds: 3}\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "empty").mkdir(mode=0o700)
    study = init_study(tmp_path / "empty", SERVER, tmp_path / "mine.yaml")
    assert study.study_file.read_text() == text


def test_init_refuses_a_folder_that_is_not_empty_and_touches_nothing(study: StudyFolder) -> None:
    before = files(study.root)
    with pytest.raises(InputError, match="is not empty; choose another folder"):
        init_study(study.root, SERVER)
    assert files(study.root) == before


def test_init_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study_folder, "_make_certificates", fail)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        init_study(tmp_path / "pilot", SERVER)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    init_study(tmp_path / "pilot", SERVER)


def test_init_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "pilot").write_text("")
    with pytest.raises(InputError, match="is there, but no folder"):
        init_study(tmp_path / "pilot", SERVER)


def test_a_folder_name_that_is_no_study_name(tmp_path: Path) -> None:
    assert load_study(init_study(tmp_path / "our study", SERVER).study_file).name == "my-study"


def test_no_study_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study folder; make one with `msfl-server init"):
        open_study(tmp_path)


def test_a_site_gets_a_kit_without_secrets(study: StudyFolder, public_key: Path, tmp_path: Path) -> None:
    archive = add_site(study, "hospital-a", public_key)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "at-site")
    assert files(tmp_path / "at-site" / "kit") == files(study.kit("hospital-a"))
    assert sorted(files(study.kit("hospital-a"))) == ["ca.crt", "kit.json", "kit.sig", "study.yaml"]
    assert not any(b"PRIVATE" in content for content in files(study.kits).values())
    kit = load_kit(tmp_path / "at-site" / "kit")
    assert (kit.study, kit.site, kit.address) == ("pilot", "hospital-a", "fl.example.org:443")
    assert list_sites(study) == ["hospital-a"]
    assert read_public_key(study.public_key_file("hospital-a")) == read_public_key(public_key)


def test_a_name_and_a_key_are_used_once(study: StudyFolder, public_key: Path, tmp_path: Path) -> None:
    add_site(study, "a", public_key)
    make_key(tmp_path / "b.key", "b")
    before = files(study.root)
    with pytest.raises(InputError, match="is the key of site a; each site makes a key of its own"):
        add_site(study, "b", public_key)
    for name in ("a", "A"):
        with pytest.raises(InputError, match="site a is there already"):
            add_site(study, name, tmp_path / "b.key.pub")
    assert files(study.root) == before
    add_site(study, "b", tmp_path / "b.key.pub")
    assert list_sites(study) == ["a", "b"]


@pytest.mark.parametrize("name", ["", "a b", "../a", ".a", "x" * 65, "a.zip", "a\n"])
def test_bad_site_names(study: StudyFolder, public_key: Path, name: str) -> None:
    before = files(study.root)
    with pytest.raises(InputError, match="site name"):
        add_site(study, name, public_key)
    assert files(study.root) == before


def ssh_keygen(path: Path, *kind: str) -> Path:
    try:
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", path, "-t", *kind], check=True)
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    return path.with_name(path.name + ".pub")


@pytest.mark.slow
def test_a_key_made_by_ssh_keygen_does(study: StudyFolder, tmp_path: Path) -> None:
    add_site(study, "a", ssh_keygen(tmp_path / "own", "ecdsa", "-b", "384"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "found"), [("ed25519", "ssh-ed25519"), ("ecdsa", "ecdsa-sha2-nistp256")])
def test_another_kind_of_key_is_named(study: StudyFolder, tmp_path: Path, kind: str, found: str) -> None:
    with pytest.raises(InputError, match=f"expected an ecdsa-sha2-nistp384 key, found {found}"):
        add_site(study, "a", ssh_keygen(tmp_path / "own", kind))


def test_a_private_key_is_refused_with_what_to_do(study: StudyFolder, public_key: Path) -> None:
    with pytest.raises(InputError, match="is a private key, which must never leave its site; delete this copy"):
        add_site(study, "a", public_key.with_name("site.key"))


@pytest.mark.parametrize("content", [b"", b"hello", b"ecdsa-sha2-nistp384 AAAA", b"\xff\xfe"])
def test_no_key_at_all(study: StudyFolder, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    with pytest.raises(InputError, match="no OpenSSH public key"):
        add_site(study, "a", tmp_path / "key.pub")
    with pytest.raises(InputError, match="cannot be read"):
        add_site(study, "a", tmp_path / "nowhere.pub")


def test_a_removed_site_leaves_that_it_was_removed_and_can_come_back(study: StudyFolder, public_key: Path) -> None:
    before = files(study.root)
    add_site(study, "a", public_key)
    remove_site(study, "a")
    assert len(set(files(study.root)) - set(before)) == 1
    with pytest.raises(InputError, match="no site a; none is authorised yet"):
        remove_site(study, "a")
    add_site(study, "a", public_key)
    remove_site(study, "a")


def test_a_kit_that_cannot_be_made_authorises_nobody(study: StudyFolder, public_key: Path) -> None:
    study.study_file.write_text("name: [")
    with pytest.raises(InputError, match="not valid YAML"):
        add_site(study, "a", public_key)
    assert list_sites(study) == []


def replace_certificate(study: StudyFolder, days_ago: int) -> Pair:
    """Authority and server certificate as they would be, made so long ago."""
    made = datetime.now(UTC) - timedelta(days=days_ago)
    authority = make_authority("pilot", made)
    server = issue_server_certificate(authority, SERVER.hosts, now=made)
    study.ca_certificate.write_bytes(authority.certificate_pem)
    study.ca_key.write_bytes(authority.key_pem)
    study.server_certificate.write_bytes(server.certificate_pem)
    study.server_key.write_bytes(server.key_pem)
    return server


@pytest.mark.parametrize(("days_ago", "text"), [(715, "expires in 14 days"), (800, "expired on")])
def test_warned_and_renewed(study: StudyFolder, days_ago: int, text: str) -> None:
    replace_certificate(study, days_ago)
    warning = certificate_warning(study)
    assert warning is not None
    assert text in warning
    assert "msfl-server renew-certificate" in warning
    kept = [path.read_bytes() for path in (study.ca_certificate, study.ca_key, study.server_key)]
    assert renew_certificate(study) >= 729
    assert certificate_warning(study) is None
    assert [path.read_bytes() for path in (study.ca_certificate, study.ca_key, study.server_key)] == kept


def test_a_host_added_later_is_warned_of_and_renewed(study: StudyFolder) -> None:
    text = study.server_file.read_text().replace("[fl.example.org]", "[fl.example.org, 10.0.0.7]")
    study.server_file.write_text(text)
    assert "is not good for 10.0.0.7" in (certificate_warning(study) or "")
    renew_certificate(study)
    assert certificate_warning(study) is None


def test_renewing_makes_kits_with_the_address_of_today(study: StudyFolder, public_key: Path) -> None:
    archive = add_site(study, "a", public_key)
    study.server_file.write_text(study.server_file.read_text().replace("fl.example.org", "new.example.org"))
    renew_certificate(study)
    assert load_kit(study.kit("a")).address == "new.example.org:443"
    with zipfile.ZipFile(archive) as packed:
        assert b"new.example.org:443" in packed.read("kit/kit.json")


def test_an_authority_that_ends(study: StudyFolder) -> None:
    replace_certificate(study, 3640)
    assert "certificate authority expires in 11 days" in (certificate_warning(study) or "")
    assert renew_certificate(study) == 11
    replace_certificate(study, 3700)
    before = files(study.root)
    with pytest.raises(InputError, match="has expired; make a new study folder"):
        renew_certificate(study)
    assert files(study.root) == before


def test_renewing_with_the_key_of_another_authority_changes_nothing(study: StudyFolder) -> None:
    study.ca_key.write_bytes(make_authority("pilot").key_pem)
    with pytest.raises(InputError, match="is not the key of the study's authority"):
        renew_certificate(study)
    study.ca_key.unlink()
    with pytest.raises(InputError, match=r"ca\.key: the authority.s key cannot be read: .*restore it from a backup"):
        renew_certificate(study)
    assert expires_in_days(read_certificate(study.server_certificate)) >= 729


def test_a_damaged_or_strange_server_key_is_named(study: StudyFolder) -> None:
    good = study.server_key.read_bytes()
    for bad, text in ((b"text", "holds no private key"), (study.ca_key.read_bytes(), "is not the key of .*server.crt")):
        study.server_key.write_bytes(bad)
        with pytest.raises(InputError, match=rf"server\.key: {text}.*restore it from a backup"):
            certificate_warning(study)
    study.server_key.write_bytes(good)
    assert certificate_warning(study) is None
