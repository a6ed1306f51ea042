"""A bound on what studies leave in a site's cache: files that nobody has used for longest go first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SETTINGS_KEPT = 4  # of contrasts, spacing and the like, for each case


def mark_used(path: Path) -> None:
    """Count a file as used now."""
    with suppress(OSError):
        os.utime(path)


def keep_newest(folder: Path, num_cases: int, ending: str) -> None:
    """Remove what goes beyond `SETTINGS_KEPT` files a case, those used longest ago first.

    Args:
        folder: of the cache.
        num_cases: that are in use now.
        ending: of the files that count; others are left alone.
    """
    files = []
    for path in folder.glob(f"*{ending}"):
        with suppress(OSError):
            files.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(files, reverse=True)[SETTINGS_KEPT * max(1, num_cases) :]:
        path.unlink(missing_ok=True)
