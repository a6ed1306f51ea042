"""Attacks by way of the joining kit: what it holds, who signed it, whom it trusts, and where it is put."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from msfl_client.cli import kit_view
from msfl_client.cli.main import main
from msfl_client.connection import supervisor
from msfl_client.connection.check import check_connection
from msfl_client.connection.supervisor import supervise
from msfl_client.site.folder import init_site
from msfl_client.site.kit_approval import APPROVAL_FILE, approve_kit, approved_kit, kit_to_use
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.errors import InputError
from msfl_common.trust.kit import (
    CA_FILE,
    KIT_FILE,
    KIT_FILES,
    SIGNATURE_FILE,
    STUDY_FILE,
    fingerprint,
    parse_kit,
    read_certificate,
    read_kit,
    sign_kit,
)
from msfl_common.trust.kit_archive import pack_kit, unpack_kit
from msfl_server.study.certificates import make_authority
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.sites import add_site
from tests.attacks.kit_study import SERVER, approve, join, refused, site, site_file, study, tree
from tests.benchmarks.boundary import kits as fuzz
from tests.commands import run_main
from tests.kits import changed, put

__all__ = ["site", "site_file", "study"]


def entries_of(study: StudyFolder) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """The honest archive of site a, entry by entry."""
    return [(zipfile.ZipInfo(f"kit/{name}"), content) for name, content in read_kit(study.kit("a")).files.items()]


def archive_of(entries: list[tuple[zipfile.ZipInfo, bytes]], path: Path) -> Path:
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, content in entries:
            packed.writestr(entry, content)
    path.write_bytes(made.getvalue())
    return path


def rewritten(study: StudyFolder, **settings: object) -> dict[str, bytes]:
    """The kit of site a with another study, signed by the study's authority."""
    files = dict(read_kit(study.kit("a")).files)
    text = yaml.safe_dump(yaml.safe_load(files[STUDY_FILE]) | settings).encode()
    return changed({**files, STUDY_FILE: text}, study.ca_key)


@pytest.mark.parametrize(
    "name",
    [
        "../site.yaml",
        "/tmp/kit.json",
        "kit/../../site.yaml",
        "kit\\..\\site.yaml",
        "KIT/KIT.JSON",
        "kit/state",
        "kit/msfl_client/__init__.py",
        "sitecustomize.py",
        "kit/kit.json\x00.py",
        "kit/",
    ],
)
def test_an_archive_with_another_entry_is_not_unpacked(study: StudyFolder, site_file: Path, name: str) -> None:
    entries = entries_of(study)
    entry = zipfile.ZipInfo("x")
    entry.filename = entry.orig_filename = name
    before = tree(site_file.parents[1])
    bad = archive_of([*entries, (entry, b"x")], site_file.parents[1] / "bad.zip")
    refused(join(bad, site_file, "--yes"), "is no file of a kit")
    bad.unlink()
    assert tree(site_file.parents[1]) == before


def test_an_entry_that_is_a_link_is_not_unpacked(study: StudyFolder, site_file: Path, tmp_path: Path) -> None:
    entries = [
        (zipfile.ZipInfo(f"kit/{name}"), content) for name, content in unpack_kit(study.kit_archive("a")).items()
    ]
    entries[0][0].external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(join(archive_of(entries, tmp_path / "bad.zip"), site_file, "--yes"), "is a link")
    assert not (site_file.parent / "kit").exists()


def test_an_entry_that_comes_twice_is_not_chosen_from(study: StudyFolder, site_file: Path, tmp_path: Path) -> None:
    entries = entries_of(study)
    with pytest.warns(UserWarning, match="Duplicate"):
        bad = archive_of([*entries, (zipfile.ZipInfo(f"kit/{CA_FILE}"), b"")], tmp_path / "bad.zip")
    refused(join(bad, site_file, "--yes"), "twice")


def test_an_entry_of_a_gigabyte_is_read_to_its_limit(study: StudyFolder, site_file: Path, tmp_path: Path) -> None:
    entries = [
        (zipfile.ZipInfo(f"kit/{name}"), content) for name, content in unpack_kit(study.kit_archive("a")).items()
    ]
    entries[2][0].compress_type = zipfile.ZIP_DEFLATED
    bad = archive_of([*entries[:2], (entries[2][0], b"\0" * 2**27), entries[3]], tmp_path / "bad.zip")
    assert bad.stat().st_size < 200_000
    content = bytearray(bad.read_bytes())
    place = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1) + 1)
    content[place + 24 : place + 28] = (100).to_bytes(4, "little")  # the directory says a hundred bytes
    for archive in (bad.read_bytes(), bytes(content)):
        bad.write_bytes(archive)
        done = join(bad, site_file, "--yes")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "larger than any file of a kit" in done.stderr or "damaged" in done.stderr


@pytest.mark.parametrize("name", KIT_FILES)
def test_a_kit_that_was_changed_on_its_way_is_refused(
    study: StudyFolder, site_file: Path, tmp_path: Path, name: str
) -> None:
    files = unpack_kit(study.kit_archive("a"))
    replaced = {
        KIT_FILE: files[KIT_FILE].replace(b"localhost", b"evilhosts"),
        CA_FILE: make_authority("pilot").certificate_pem,
        STUDY_FILE: files[STUDY_FILE].replace(b"seed: 0", b"seed: 1"),
        SIGNATURE_FILE: sign_kit(make_authority("pilot").key, "a", files),
    }
    assert replaced[name] != files[name]
    (tmp_path / "bad.zip").write_bytes(pack_kit({**files, name: replaced[name]}))
    done = join(tmp_path / "bad.zip", site_file, "--yes")
    refused(
        done, "not the certificate that kit.json names" if name == CA_FILE else "not signed by the study's authority"
    )


def test_the_kit_of_another_site_is_refused(study: StudyFolder, site_file: Path, tmp_path: Path) -> None:
    other = init_site(tmp_path / "other", "b", tmp_path / "bids")
    refused(join(add_site(study, "b", other.public_key_file), site_file, "--yes"), "is the kit of site b")
    renamed = {**unpack_kit(study.kit_archive("b"))}
    renamed[KIT_FILE] = renamed[KIT_FILE].replace(b'"site": "b"', b'"site": "a"')
    (tmp_path / "bad.zip").write_bytes(pack_kit(renamed))
    refused(join(tmp_path / "bad.zip", site_file, "--yes"), "not signed by the study's authority")


def test_a_second_authority_behind_the_pinned_one_is_refused(study: StudyFolder, site_file: Path) -> None:
    """The fingerprint is of the first; TLS would have trusted both."""
    files = dict(read_kit(study.kit("a")).files)
    files[CA_FILE] += make_authority("evil").certificate_pem
    put(changed(files, study.ca_key), site_file.parent / "kit")
    refused(approve(site_file, "--yes"), "expected one certificate, found 2")
    files[CA_FILE] = study.ca_certificate.read_bytes() + b"# a note\n"
    put(changed(files, study.ca_key), site_file.parent / "kit")
    refused(approve(site_file, "--yes"), "more than the authority's certificate")


def test_nobody_approves_an_unseen_authority_unattended(study: StudyFolder, site_file: Path, tmp_path: Path) -> None:
    archive, pinned = study.kit_archive("a"), fingerprint(read_certificate(study.ca_certificate))
    refused(join(archive, site_file), "needs a person's yes, and there is no terminal")
    refused(join(archive, site_file, "--fingerprint", "00" * 32), "do not continue")
    assert not (site_file.parent / "state" / APPROVAL_FILE).exists()
    spelled = ":".join(pinned[place : place + 2].upper() for place in range(0, 64, 2))
    assert join(archive, site_file, "--fingerprint", spelled).returncode == 0
    assert stat.S_IMODE((site_file.parent / "state" / APPROVAL_FILE).stat().st_mode) == 0o600
    assert join(archive, site_file).returncode == 0  # the very kit that is approved asks for nothing
    impostor = init_study(tmp_path / "impostor" / "pilot", SERVER)
    bad = add_site(impostor, "a", site_file.parent / "site.key.pub")
    refused(join(bad, site_file, "--yes"), "--yes changes no authority")
    kept = approved_kit(load_site(site_file))
    assert kept is not None
    assert fingerprint(kept.authority) == pinned
    (site_file.parent / "state" / APPROVAL_FILE).write_bytes(b"broken")
    refused(approve(site_file, "--yes"), "--yes changes no authority")  # nobody can tell what it was
    assert approve(site_file, "--fingerprint", pinned).returncode == 0


def test_a_no_changes_nothing_and_a_yes_is_asked_for(
    study: StudyFolder, site_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(site_file.parent)

    class Terminal:
        answer = "no\n"

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr(kit_view.sys, "stdin", Terminal())
    done = join(study.kit_archive("a"), site_file)
    assert done.returncode == 2
    assert "not approved; nothing was changed" in done.stderr
    assert tree(site_file.parent) == before
    for shown in (
        "study:",
        "pilot",
        "lesion-segmentation",
        "model_update",
        "T1w, FLAIR",
        "harmonization:",
        "localhost",
    ):
        assert shown in done.stdout
    groups = [line.split() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert "".join(group for line in groups for group in line).lower() == fingerprint(
        read_certificate(study.ca_certificate)
    )
    monkeypatch.setattr(Terminal, "answer", "yes\n")
    assert join(study.kit_archive("a"), site_file).returncode == 0


def test_a_kit_put_there_by_hand_is_not_used_before_a_person_approves_it(study: StudyFolder, site_file: Path) -> None:
    put(read_kit(study.kit("a")).files, site_file.parent / "kit")
    site = load_site(site_file)
    with pytest.raises(InputError, match=r"nobody here has approved this kit yet; .*`msfl-client approve SITE\.yaml`"):
        supervise(site, site_file)
    rows = {row.name: row for row in check_connection(site)}
    assert (rows["kit"].level, rows["server"].level) == ("fail", "skip")
    assert "msfl-client approve SITE.yaml" in rows["kit"].fix
    assert approve(site_file, "--yes").returncode == 0
    assert kit_to_use(site).digest == read_kit(site.kit).digest


def test_a_changed_study_waits_for_a_person_and_the_approved_one_stays(
    study: StudyFolder, site: SiteConfig, site_file: Path
) -> None:
    put(rewritten(study, seed=7, harmonization={"method": "combat"}), site.kit)
    assert kit_to_use(site).study.seed == 0
    told = json.loads(run_main(main, "status", site_file, "--json").stdout)["kit_to_approve"]
    assert "differs from the kit that was approved" in told
    assert "msfl-client approve" in told
    row = next(row for row in check_connection(site) if row.name == "kit")
    assert (row.level, "msfl-client approve" in row.fix) == ("warn", True)
    done = approve(site_file, "--yes")
    assert done.returncode == 0
    assert "study.seed: 0 -> 7" in done.stdout
    assert "study.harmonization.method: none -> combat" in done.stdout
    assert "study.training" not in done.stdout
    assert kit_to_use(site).study.seed == 7
    assert json.loads(run_main(main, "status", site_file, "--json").stdout)["kit_to_approve"] is None


@pytest.mark.parametrize("moment", ["as it starts", "while it runs"])
def test_a_kit_approved_at_any_moment_is_used_and_no_other_is(
    study: StudyFolder, site: SiteConfig, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A kit that nobody approved restarts nothing, its file touched or not; one that is approved is not missed."""
    used: list[int] = []
    ticks = iter(range(5))

    class Node:
        exit_code = None

        def __init__(self, *_: object, **__: object) -> None: ...

        def start(self) -> None:
            used.append(kit_to_use(site).study.seed)
            if moment == "as it starts" and len(used) == 1:
                approve_kit(site, read_kit(site.kit))

        def stop(self) -> None: ...

        def tend_log(self) -> None:
            tick = next(ticks, None)
            if tick is None:
                raise KeyboardInterrupt
            if tick == 1:
                (site.kit / KIT_FILE).touch()
            if moment == "while it runs" and tick == 2:
                assert used == [0]
                approve_kit(site, read_kit(site.kit))

    monkeypatch.setattr(supervisor, "Child", Node)
    monkeypatch.setattr(supervisor, "TICK_S", 0.01)
    put(rewritten(study, seed=7), site.kit)
    with pytest.raises(KeyboardInterrupt):
        supervise(site, site.state.parent / "site.yaml")
    assert used == [0, 7]


def test_another_address_is_a_change_that_is_shown(study: StudyFolder, site: SiteConfig, site_file: Path) -> None:
    files = read_kit(site.kit).files
    put(changed(files, study.ca_key, address="evil.example.org:9443"), site.kit)
    assert kit_to_use(site).kit.address == "localhost:9443"
    assert "kit.address: localhost:9443 -> evil.example.org:9443" in approve(site_file, "--yes").stdout


@pytest.mark.parametrize("what", ["mode", "link", "content", "owner"])
def test_an_approval_that_others_could_write_does_not_count(site: SiteConfig, tmp_path: Path, what: str) -> None:
    path = site.state / APPROVAL_FILE
    match what:
        case "mode":
            path.chmod(0o666)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "owner":
            if os.geteuid() != 0:
                pytest.skip("giving a file away needs root")
            os.chown(path, 65534, 65534)
        case _:
            path.write_text(path.read_text().replace("localhost", "evilhosts"))
    with pytest.raises(InputError, match=r"other accounts may|cannot be read|not signed"):
        kit_to_use(site)


def test_a_kit_folder_that_is_a_link_or_holds_more_is_refused(site: SiteConfig, site_file: Path) -> None:
    (site.kit / "state").symlink_to("/tmp")
    with pytest.raises(InputError, match="'state' is no file of a kit"):
        read_kit(site.kit)
    refused(join(Path("none.zip"), site_file), "no such file")
    (site.kit / "state").unlink()
    (site.kit / KIT_FILE).rename(site_file.parent / "elsewhere")
    (site.kit / KIT_FILE).symlink_to(site_file.parent / "elsewhere")
    with pytest.raises(InputError, match=r"kit\.json: a link"):
        read_kit(site.kit)
    (site.kit / KIT_FILE).unlink()
    os.mkfifo(site.kit / KIT_FILE)  # to whom opens it, a wait for ever
    with pytest.raises(InputError, match=r"kit\.json: no ordinary file"):
        read_kit(site.kit)
    shutil.rmtree(site.kit)
    site.kit.symlink_to(site_file.parent)
    with pytest.raises(InputError, match=r"kit: is a link"):
        load_site(site_file)


def test_taking_a_kit_over_destroys_no_other_files(study: StudyFolder, site_file: Path) -> None:
    site_file.write_text(site_file.read_text() + "\nkit: .\n")
    text = "\n".join(line for line in site_file.read_text().splitlines() if not line.startswith("kit: kit"))
    site_file.write_text(text + "\n")
    refused(join(study.kit_archive("a"), site_file, "--yes"), "holds other files than a kit's")
    assert (site_file.parent / "site.key").exists()


def test_mutated_kits_are_refused_by_one_line_or_are_what_was_signed(tmp_path: Path) -> None:
    honest = fuzz.honest_kit(tmp_path)
    faults = []
    for seed in range(60):
        work = tmp_path / str(seed)
        work.mkdir()
        kind, fault = fuzz.attack(honest, seed, work)
        faults += [f"{seed}: {kind}: {fault}"] if fault else []
    assert faults == []
    assert parse_kit(unpack_kit(tmp_path / "pilot" / "kits" / "a.zip"), "").digest == honest.kit.digest
