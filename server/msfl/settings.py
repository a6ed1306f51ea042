"""Files of settings: a study's and a site's."""

from __future__ import annotations

from pathlib import Path

from msfl_common.config import site, study


def load_study(path: str | Path) -> study.StudyConfig:
    """Read `study.yaml`.

    Raises:
        ConfigError: it is missing or does not validate; one line per fault.
    """
    return study.load_study(Path(path))


def load_site(path: str | Path) -> site.SiteConfig:
    """Read a site's file, or the `site.yaml` of its folder.

    Raises:
        ConfigError: it is missing or does not validate; one line per fault.
        PrivateFolderError: other accounts may change it.
    """
    return site.load_site(Path(path))
