"""The study that a site's joining kit names."""

from __future__ import annotations

from msfl_client.kit_approval import approved_kit
from msfl_common.config import SiteConfig, StudyConfig
from msfl_common.errors import InputError, PrivateFolderError
from msfl_common.kit import read_kit


def study_of_kit(site: SiteConfig) -> StudyConfig | None:
    """The approved kit's study, or, before that, the arrived one's.

    None where there is no kit, or one that the check of the connection finds fault with.

    Raises:
        PrivateFolderError: this account may not read the approved kit.
    """
    try:
        return (approved_kit(site) or read_kit(site.kit)).study
    except PrivateFolderError:
        raise
    except InputError:
        return None
