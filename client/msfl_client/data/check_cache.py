"""Results of earlier checks, so that nothing is read again that has not changed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from msfl_client.data.bids import Case
from msfl_client.data.case_checks import CaseReport
from msfl_client.data.sidecar_rules import sidecar_of
from msfl_common.config.inputs import Inputs
from msfl_common.system.files import private_folder, write_text
from msfl_common.system.reading import read_mapping

RULES_VERSION = 13
"""Raised whenever a rule changes, so that older results are not used."""

_REPORT = TypeAdapter(CaseReport)
# These may pass by themselves (a share that is not mounted, memory that ran out): look again next time.
_PASSING_RULES = {"unreadable", "unexpected"}


class CheckCache:
    """The file `cache/checks.json` in a site's state folder; a damaged or older one counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = _read(path)
        self._changed = False

    def get(self, slot: str, fingerprint: str | None) -> CaseReport | None:
        """The report kept under `slot`, if its files are as they were."""
        entry = self._entries.get(slot)
        if fingerprint is None or not isinstance(entry, dict) or entry.get("files") != fingerprint:
            return None
        try:
            return _REPORT.validate_python(entry.get("report"))
        except ValidationError:
            return None

    def put(self, slot: str, fingerprint: str | None, report: CaseReport) -> None:
        """Keep a report, unless its faults may pass by themselves."""
        if fingerprint is None or any(finding.rule in _PASSING_RULES for finding in report.findings):
            return
        self._entries[slot] = {"files": fingerprint, "report": asdict(report)}
        self._changed = True

    def save(self) -> None:
        """Write the file in one step, if there is anything new.

        Raises:
            OSError: it cannot be written.
        """
        if self._changed:
            content = {"rules_version": RULES_VERSION, "cases": self._entries}
            private_folder(self._path.parents[1])
            write_text(self._path, json.dumps(content) + "\n")
            self._changed = False


def slot_of(case: Case, inputs: Inputs, needs_mask: bool) -> str:
    """Where a case's report is kept: one place for each case and each set of demands on it."""
    needed = ["mask" if needs_mask else "images", *(inputs.lesion_classes if needs_mask else ())]
    own = inputs.parcellation
    needed += [] if own is None else [hashlib.sha256(own.model_dump_json().encode()).hexdigest()[:16]]
    return f"{case.key} {'+'.join(inputs.channels)} {' '.join(needed)}"


def fingerprint_of(case: Case, needs_mask: bool) -> str | None:
    """Digest of paths, sizes and modification times; None when a file cannot be looked at, or not be read."""
    sidecars = [path for path in map(sidecar_of, case.images.values()) if os.path.lexists(path)]
    files = [*case.images.values(), *sidecars, *([case.mask] if needs_mask and case.mask else [])]
    files += [case.labels] if case.labels else []
    try:
        stats = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    except OSError:
        return None
    if not all(os.access(path, os.R_OK) for path in files):
        return None
    return hashlib.sha256(json.dumps([needs_mask, stats]).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content = read_mapping(path)
    cases = content.get("cases") if content.get("rules_version") == RULES_VERSION else None
    return cases if isinstance(cases, dict) else {}
