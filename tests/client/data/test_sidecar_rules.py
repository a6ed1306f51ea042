"""Images whose sidecars tell of another contrast's sequence than their names do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from msfl_client.data.bids_names import has_agent
from msfl_client.data.check_cache import fingerprint_of
from msfl_client.data.checks import check_site
from msfl_client.data.findings import refusals_in
from msfl_client.data.sidecar_rules import sequence_rule, sidecar_of
from msfl_common.config.study import Inputs

MPRAGE = {"EchoTime": 0.003, "RepetitionTime": 2.3, "InversionTime": 0.9}
FLAIR = {"EchoTime": 0.39, "RepetitionTime": 5.0, "InversionTime": 1.65}
T2W = {"EchoTime": 0.1, "RepetitionTime": 4.0}


def found(folder: Path, contrast: str, sidecar: Any) -> list[tuple[str, str]]:
    image = folder / f"sub-1_{contrast}.nii.gz"
    content = sidecar if isinstance(sidecar, str | bytes) else json.dumps(sidecar)
    sidecar_of(image).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(finding.level, finding.rule) for finding in sequence_rule(image, contrast)]


@pytest.mark.parametrize(
    ("contrast", "sidecar", "level"),
    [
        ("T1w", MPRAGE, None),
        ("FLAIR", FLAIR, None),
        ("T2w", T2W, None),
        ("FLAIR", MPRAGE, "fail"),
        ("T1w", FLAIR, "fail"),
        ("T2w", FLAIR, "fail"),
        ("FLAIR", T2W, None),  # without an inversion time: some scanners leave it out
        ("earlier-FLAIR", MPRAGE, "fail"),
        ("FLAIR", {name: 1000 * value for name, value in FLAIR.items()}, None),  # milliseconds
        ("T1w", {name: 1000 * value for name, value in FLAIR.items()}, "fail"),
        ("T1w", {"EchoTime": 0.08, "RepetitionTime": 1.2}, "warn"),  # of no contrast for certain
        ("FLAIR", {"EchoTime": "short"}, None),
        ("FLAIR", {}, None),
        ("FLAIR", "{", "unread"),
        ("FLAIR", "[1]", "unread"),
        ("FLAIR", json.dumps(MPRAGE).encode("utf-8-sig"), "fail"),  # as Windows' editors save it
        ("FLAIR", json.dumps(MPRAGE).encode("utf-16"), "fail"),
        ("FLAIR", MPRAGE | {"EchoTime": 10**400}, None),
        ("FLAIR", MPRAGE | {"EchoTime": True}, None),
        ("T1w", {"EchoTime": 4.6, "RepetitionTime": 9.9}, None),  # milliseconds, all below a minute
        ("FLAIR", {"EchoTime": 4.6, "RepetitionTime": 9.9}, "fail"),
    ],
)
def test_times_of_another_contrast_are_found(tmp_path: Path, contrast: str, sidecar: Any, level: str | None) -> None:
    findings = {"fail": [("fail", "sequence")], "warn": [("warn", "times")], "unread": [("warn", "sidecar")]}
    assert found(tmp_path, contrast, sidecar) == (findings[level] if level else [])


def test_what_cannot_be_read_beside_an_image_is_said_and_stops_nothing(tmp_path: Path) -> None:
    image = tmp_path / "sub-1_T1w.nii.gz"
    beside = sidecar_of(image)
    assert not list(sequence_rule(image, "T1w"))
    for make, undo in (
        (beside.mkdir, beside.rmdir),
        (lambda: os.mkfifo(beside), beside.unlink),
        (lambda: beside.symlink_to("gone"), beside.unlink),
    ):
        make()
        assert [finding.rule for finding in sequence_rule(image, "T1w")] == ["sidecar"]
        assert not has_agent(beside)
        undo()
    beside.write_bytes(json.dumps({"ContrastBolusAgent": "Gadovist"}).encode("utf-8-sig"))
    assert has_agent(beside)


def test_two_images_in_each_others_place_are_refused_until_their_sidecars_are_right(make_site: Any) -> None:
    site = make_site()
    site.add("sub-1")
    inputs = Inputs(contrasts=("T1w", "FLAIR"))
    assert not [finding for finding in check_site(site.config(), inputs).findings if finding.level == "fail"]
    before = fingerprint_of(site.cases()["sub-1"], True)
    for contrast, times in (("T1w", FLAIR), ("FLAIR", MPRAGE)):
        sidecar_of(site.image("sub-1", contrast)).write_text(json.dumps(times))
    assert fingerprint_of(site.cases()["sub-1"], True) != before
    findings = check_site(site.config(), inputs).findings
    assert [finding.rule for finding in findings if finding.level == "fail"] == ["sequence", "sequence"]
    texts = refusals_in(findings, force=False)
    assert texts[0].startswith("T1w: its sidecar tells of a sequence (echo 0.39 s, repetition 5 s, inversion 1.65 s)")
    assert texts[0].endswith("that is no T1w but a FLAIR")
    assert not refusals_in(findings, force=True)
