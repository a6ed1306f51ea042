"""The authorised sites of a study: their keys and joining kits."""

from __future__ import annotations

import shutil
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common.config.secure_aggregation import POOLED
from msfl_common.config.study import load_study
from msfl_common.errors import InputError
from msfl_common.system.files import write_text
from msfl_server.study.folder import authority_key, is_name, list_sites
from msfl_server.study.kits import holds, make_kit
from msfl_server.study.paths import StudyFolder
from msfl_server.study.site_keys import forget_removed, read_public_key, remember_removed


def add_site(
    study: StudyFolder, site: str, public_key_file: Path, ca_key: ec.EllipticCurvePrivateKey | None = None
) -> Path:
    """Authorise a site and make its joining kit; the path of the kit's archive.

    Args:
        study: the study folder.
        site: the site's name.
        public_key_file: the site's site.key.pub.
        ca_key: the authority's key, which signs the kit; without it, the one in `pki/`.

    Raises:
        InputError: the name or the key is used already, or is not valid.
    """
    if not is_name(site) or site.endswith(".zip"):  # kits/NAME.zip is another site's archive
        raise InputError(f"site name {site!r}: expected at most 64 letters, digits, dots, dashes, underscores")
    if site == POOLED:
        raise InputError(f"site name {site}: stands for all sites together in a run's figures; choose another name")
    key = read_public_key(public_key_file)
    for other in list_sites(study):
        if other.casefold() == site.casefold():
            raise InputError(f"site {other} is there already; choose another name, or `remove-site` it first")
        if read_public_key(study.public_key_file(other)) == key:
            raise InputError(f"{public_key_file}: is the key of site {other}; each site makes a key of its own")
    make_kit(study, site, ca_key or authority_key(study))
    forget_removed(study.sites, key)
    # The public key last: it is what authorises.
    write_text(study.public_key_file(site), f"{key} {site}\n")
    return study.kit_archive(site)


def remove_site(study: StudyFolder, site: str) -> None:
    """Take a site's authority away, and its kit.

    Raises:
        InputError: there is no such site.
    """
    sites = list_sites(study)
    if site not in sites:
        there = f"there are: {', '.join(sites)}" if sites else "none is authorised yet"
        raise InputError(f"no site {site}; {there}")
    remember_removed(study.public_key_file(site))
    study.public_key_file(site).unlink()
    study.kit_archive(site).unlink(missing_ok=True)
    shutil.rmtree(study.kit(site), ignore_errors=True)


def stale_kits(study: StudyFolder) -> list[str]:
    """Sites whose kit does not hold `study.yaml`: a site serves the study that it has approved and no other."""
    now = load_study(study.study_file)
    return [site for site in list_sites(study) if not holds(study, site, now)]


def refresh_kits(study: StudyFolder, ca_key: ec.EllipticCurvePrivateKey | None = None) -> list[str]:
    """Make the stale kits anew; the sites that need theirs again."""
    stale = stale_kits(study)
    for site in stale:
        make_kit(study, site, ca_key or authority_key(study))
    return stale
