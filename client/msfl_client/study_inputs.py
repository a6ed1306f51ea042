"""The study that a site's joining kit names."""

from __future__ import annotations

from msfl_common.config import SiteConfig, StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.kit import STUDY_FILE


def study_of_kit(site: SiteConfig) -> StudyConfig | None:
    """The kit's study; None where there is no kit, or one that the check of the connection finds fault with."""
    try:
        return load_study(site.kit / STUDY_FILE)
    except InputError:
        return None
