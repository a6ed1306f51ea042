"""Who vouches for a model that a person names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msfl_common.config.site import SiteConfig


def origin_of(model: Path, authority: str | None, site: SiteConfig | None) -> str:
    """Who vouches for a model folder, in a sentence.

    Args:
        model: the folder.
        authority: whom it has to be signed for; None: at a site its approved kit's, else whoever.
        site: at which it is used, if at one.

    Raises:
        ModelFolderError: its files are altered, or it is not of that authority.
    """
    from msfl_common.models.model_signature import check_origin, fingerprint_of

    if authority is None and site is not None:
        return _origin_at_site(model, site)
    return check_origin(model, fingerprint_of(authority) if authority is not None else None).sentence


def _origin_at_site(model: Path, site: SiteConfig) -> str:
    """Who vouches for the model, as the authority of the site's approved kit has it."""
    from msfl_client.site.folder import OWN_MODELS
    from msfl_client.site.kit_approval import approved_kit
    from msfl_common.errors import ModelFolderError
    from msfl_common.models.model_folder import read_card
    from msfl_common.models.model_signature import check_origin
    from msfl_common.trust.kit import fingerprint

    if read_card(model).own_of == site.name and model.resolve().is_relative_to((site.state / OWN_MODELS).resolve()):
        check_origin(model)
        return f"Site {site.name}'s own model, made here: nobody else vouches for it."
    kit = approved_kit(site)
    try:
        return check_origin(model, fingerprint(kit.authority) if kit is not None else None).sentence
    except ModelFolderError as error:
        raise ModelFolderError(
            f"{error}; with SITE.yaml, a model must be of the approved kit's authority: name another's with "
            "--authority, or give --input without SITE.yaml"
        ) from None
