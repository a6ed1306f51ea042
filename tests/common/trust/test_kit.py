"""The joining kit as a site reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.kits import put

from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.networks.registry import UNet
from msfl_common.system.files import write_json
from msfl_common.trust.kit import (
    CA_FILE,
    KIT_FILE,
    SIGNATURE_FILE,
    STUDY_FILE,
    Kit,
    fingerprint,
    load_kit,
    read_kit,
    sign_kit,
)
from msfl_server.study.certificates import Pair, issue_server_certificate, make_authority


def write_kit(folder: Path, pair: Pair, study: bytes = b"name: pilot\n") -> Path:
    """A kit around any certificate, whose fingerprint and signature are right."""
    kit = Kit(
        study="pilot",
        site="a",
        address="fl.example.org:9443",
        msfl_version="1",
        ca_sha256=fingerprint(pair.certificate),
        server_since=datetime(2026, 1, 1, tzinfo=UTC),
    )
    files = {KIT_FILE: kit.model_dump_json().encode(), CA_FILE: pair.certificate_pem, STUDY_FILE: study}
    put(files | {SIGNATURE_FILE: sign_kit(pair.key, "a", files)}, folder)
    return folder


def test_a_good_kit(tmp_path: Path) -> None:
    kit = load_kit(write_kit(tmp_path / "kit", make_authority("pilot")))
    assert (kit.study, kit.site, kit.address) == ("pilot", "a", "fl.example.org:9443")


def test_a_kit_of_an_earlier_version_is_read_in_its_words(tmp_path: Path) -> None:
    study = b"name: pilot\nnetwork: {kind: unet, channels: [4, 8]}\n"
    kit = read_kit(write_kit(tmp_path / "kit", make_authority("pilot"), study))
    assert kit.study == StudyConfig(name="pilot", network=UNet(channels=(4, 8)))


def test_a_kits_study_is_read_as_any_study(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", make_authority("pilot"), b"name: pilot\nmin_patients: yes\n")
    with pytest.raises(InputError, match=r"study.yaml: min_patients: .*; install MSFL 1"):
        read_kit(kit)


def test_no_kit_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kit: no joining kit; take over the coordinator's with `msfl-client join"):
        load_kit(tmp_path / "kit")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"address": "fl.example.org"}, "address: found 'fl.example.org'"),
        ({"ca_sha256": "aa"}, "ca_sha256: found 'aa'"),
        ({"extra": 1}, "extra: unknown key"),
    ],
)
def test_a_damaged_kit_names_the_field(tmp_path: Path, change: dict[str, object], line: str) -> None:
    folder = write_kit(tmp_path / "kit", make_authority("pilot"))
    write_json(folder / KIT_FILE, json.loads((folder / KIT_FILE).read_text()) | change)
    with pytest.raises(InputError) as caught:
        load_kit(folder)
    assert line in str(caught.value)
    assert str(caught.value).endswith("; ask the coordinator for it again")


def test_a_kit_that_is_no_json(tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "kit", make_authority("pilot"))
    (folder / KIT_FILE).write_text("{")
    with pytest.raises(InputError) as caught:
        load_kit(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_an_exchanged_authority_is_refused(tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "kit", make_authority("pilot"))
    (folder / CA_FILE).write_bytes(make_authority("pilot").certificate_pem)
    with pytest.raises(InputError, match=r"not the certificate that kit\.json names"):
        load_kit(folder)


def test_a_server_certificate_is_no_authority(tmp_path: Path) -> None:
    folder = write_kit(tmp_path / "kit", issue_server_certificate(make_authority("pilot"), ["localhost"]))
    with pytest.raises(InputError, match="expected a certificate authority"):
        load_kit(folder)


@pytest.mark.parametrize(("days_ago", "text"), [(3653, "authority expired on"), (-3, "authority is valid from")])
def test_an_authority_out_of_its_time(tmp_path: Path, days_ago: int, text: str) -> None:
    authority = make_authority("pilot", now=datetime.now(UTC) - timedelta(days=days_ago))
    with pytest.raises(InputError, match=text):
        load_kit(write_kit(tmp_path / "kit", authority))


@pytest.mark.parametrize(("content", "text"), [(None, "has no ca.crt"), (b"text", "holds no certificate")])
def test_a_missing_or_damaged_certificate(tmp_path: Path, content: bytes | None, text: str) -> None:
    folder = write_kit(tmp_path / "kit", make_authority("pilot"))
    (folder / CA_FILE).unlink()
    if content is not None:
        (folder / CA_FILE).write_bytes(content)
    with pytest.raises(InputError, match=text):
        load_kit(folder)
