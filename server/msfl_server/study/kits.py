"""The joining kits of a study's sites, made and signed with the authority's key."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common import __version__
from msfl_common.config.optimisation import written_out
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.system.files import quoted, whole_folder, write_bytes
from msfl_common.trust.kit import (
    CA_FILE,
    KIT_FILE,
    SIGNATURE_FILE,
    STUDY_FILE,
    Kit,
    fingerprint,
    parse_kit,
    read_certificate,
    read_kit,
    sign_kit,
)
from msfl_common.trust.kit_archive import pack_kit
from msfl_server.study.server_config import load_server

if TYPE_CHECKING:
    from msfl_server.study.paths import StudyFolder

RESTORE = "restore it from a backup"


def make_kit(study: StudyFolder, site: str, authority_key: ec.EllipticCurvePrivateKey) -> None:
    """Make a site's kit, as a folder and as an archive.

    Raises:
        InputError: the study, the server's settings or a certificate are unsound.
    """
    kit = Kit(
        study=load_study(study.study_file).name,
        site=site,
        address=load_server(study.server_file).address,
        msfl_version=__version__,
        ca_sha256=fingerprint(read_certificate(study.ca_certificate, RESTORE)),
        server_since=server_since(study),
    )
    files = {
        KIT_FILE: (kit.model_dump_json(indent=2) + "\n").encode(),
        CA_FILE: study.ca_certificate.read_bytes(),
        STUDY_FILE: study.study_file.read_bytes(),
    }
    files[SIGNATURE_FILE] = sign_kit(authority_key, site, files)
    parse_kit(files, str(study.kit(site)))  # as the site will
    with whole_folder(study.kit(site)) as folder:
        for name, content in files.items():
            write_bytes(folder / name, content)
    write_bytes(study.kit_archive(site), pack_kit(files))


def holds(study: StudyFolder, site: str, now: StudyConfig) -> bool:
    """Whether a site's kit is whole and holds this study; how its rounds go may change without a new kit."""
    try:
        made = read_kit(study.kit(site)).study
    except InputError:
        return False
    return written_out(made.model_copy(update={"rounds": now.rounds})) == written_out(now)


def server_since(study: StudyFolder) -> datetime:
    """From when on the server's certificates count; it moves when the server's key is given up."""
    try:
        return datetime.fromisoformat(study.server_since.read_text().strip())
    except (OSError, ValueError):
        raise InputError(
            f"{study.server_since}: missing or damaged; {RESTORE}, or run `msfl-server renew-certificate --new-key "
            f"{quoted(study.root)}`"
        ) from None
