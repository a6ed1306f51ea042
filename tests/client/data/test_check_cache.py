"""What a site's check keeps of earlier looks: only what has changed is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.client.data.test_checks import INPUTS, mask, short, truncated

from msfl_client.data import case_checks
from msfl_client.data.checks import check_site
from msfl_common.config.study import Inputs


def test_results_are_kept_and_only_changed_files_are_read_again(site, monkeypatch):
    read: list[str] = []
    examine = case_checks.examine_case

    def counted(case, inputs, needs_mask):
        read.append(case.key)
        return examine(case, inputs, needs_mask)

    monkeypatch.setattr("msfl_client.data.checks.examine_case", counted)
    first = check_site(site.config(), INPUTS)
    assert sorted(read) == ["sub-01", "sub-02", "sub-03"]
    read.clear()
    assert check_site(site.config(), INPUTS) == first
    assert read == []
    mask(site.lesions(6))(site)
    assert check_site(site.config(), INPUTS).facts["sub-01"] != first.facts["sub-01"]
    assert read == ["sub-01"]
    read.clear()
    assert len(check_site(site.config(), Inputs(contrasts=("T1w",))).cases) == 3
    assert len(read) == 3
    read.clear()
    check_site(site.config(), INPUTS)
    assert read == []


def test_failures_are_kept_too_but_not_those_that_may_pass(site):
    truncated(site)
    site.mask("sub-02").unlink()
    site.mask("sub-02").symlink_to(site.root / "nowhere")
    first = check_site(site.config(), INPUTS)
    assert sorted(first.excluded) == ["sub-01", "sub-02"]
    kept = json.loads((site.root.parent / "state" / "cache" / "checks.json").read_text())["cases"]
    assert sorted(slot.split()[0] for slot in kept) == ["sub-01", "sub-03"]
    assert check_site(site.config(), INPUTS).excluded == first.excluded


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"rules_version": 0, "cases": {}}', '{"rules_version": 1, "cases": 3}']
)
def test_damaged_or_older_cache_counts_as_empty(site, content):
    cache = site.root.parent / "state" / "cache" / "checks.json"
    cache.parents[1].mkdir(mode=0o700)
    cache.parent.mkdir()
    cache.write_text(content)
    assert len(check_site(site.config(), INPUTS).cases) == 3


def test_entry_of_another_shape_is_not_used(site):
    check_site(site.config(), INPUTS)
    cache = site.root.parent / "state" / "cache" / "checks.json"
    content = json.loads(cache.read_text())
    for entry in content["cases"].values():
        entry["report"] = {"findings": "none"}
    cache.write_text(json.dumps(content))
    assert len(check_site(site.config(), INPUTS).cases) == 3


def test_cache_that_cannot_be_written_is_a_warning(site):
    (site.root.parent / "state").mkdir(mode=0o700)
    (site.root.parent / "state" / "cache").touch()
    result = check_site(site.config(), INPUTS)
    assert len(result.cases) == 3
    assert short(result.findings) == [("warn", "check-cache")]


def test_a_file_that_may_not_be_read_any_more_is_said(site, monkeypatch):
    assert len(check_site(site.config(), INPUTS).cases) == 3
    closed = site.image("sub-02", "T1w")
    monkeypatch.setattr("os.access", lambda path, _: path != closed)
    open_file = Path.open

    def refused(path, *how, **more):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *how, **more)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr("builtins.open", lambda path, *how, **more: refused(Path(path), *how, **more))
    assert check_site(site.config(), INPUTS).excluded.keys() == {"sub-02"}
