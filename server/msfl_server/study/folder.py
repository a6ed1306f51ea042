"""The coordinator's study folder: its settings, certificates, authorised sites and their joining kits.

study.yaml  server.yaml         what the coordinator edits
pki/                            ca.crt, ca.key, server.crt, server.key, server.since; the keys have mode 0600;
                                ca.key may lie elsewhere: it signs kits and the server's certificate, no more
sites/NAME.pub                  public key of each authorised site
kits/NAME/  kits/NAME.zip       what to hand to the site; no secret
superlink.db  run/  logs/  status.json    what the server leaves
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import TypeAdapter, ValidationError

from msfl_common.config.base import Name, validate
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.config.yaml_template import commented_yaml
from msfl_common.errors import InputError, unreadable
from msfl_common.system.files import check_private, private_folder, quoted, unless_empty, write_bytes, write_text
from msfl_common.system.reading import MOST_KEY, mapping_of, read_bounded
from msfl_common.trust.kit import read_certificate
from msfl_server.study.authority_key import load_authority_key, write_authority_key
from msfl_server.study.certificates import (
    BACKDATED,
    Pair,
    covers,
    expires_in_days,
    expiry_warning,
    issue_server_certificate,
    make_authority,
)
from msfl_server.study.kits import RESTORE, make_kit, server_since
from msfl_server.study.ledger_heads import Notary
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig, load_server

_STUDY_HEADER = (
    "The study. Every site validates it again and holds it against its own policy.\n"
    "What is given here is the default; leave out what you do not change."
)
_SERVER_HEADER = (
    "The study's server. After a change of hosts or ports: msfl-server renew-certificate, which makes the kits anew."
)


def init_study(
    folder: Path,
    server: ServerConfig,
    study_file: Path | None = None,
    offline_ca: Path | None = None,
    passphrase: bytes | None = None,
    template: str | None = None,
) -> StudyFolder:
    """Make a study folder with a certificate authority of its own.

    Args:
        folder: created when missing; must be empty.
        server: what `server.yaml` is to say.
        study_file: the study; without one, every setting at its default, with comments.
        offline_ca: folder for the authority's key, made when missing; without one, it lies in `pki/`.
        passphrase: encrypts the authority's key.
        template: the text of a study, in the place of every setting at its default.

    Raises:
        InputError: the folder is not empty or cannot be written; it is left as it was.
        ConfigError: the study does not validate.
    """
    if study_file is not None:
        name, study_text = load_study(study_file).name, study_file.read_text(encoding="utf-8")
    else:
        name = folder.resolve().name if is_name(folder.resolve().name) else "my-study"
        study_text = template or commented_yaml(StudyConfig(name=name), _STUDY_HEADER)
        name = name if template is None else validate(StudyConfig, mapping_of(template, "template"), "template").name
    try:
        with unless_empty(folder, *([offline_ca] if offline_ca else [])):
            private_folder(folder)  # keys, and in the database each site's updates
            if offline_ca is not None:
                private_folder(offline_ca)
                if (offline_ca / "ca.key").exists():
                    raise InputError(f"{offline_ca / 'ca.key'}: is there already; name another folder")
            if any(folder.iterdir()):
                raise InputError(f"{folder}: is not empty; choose another folder, nothing was changed")
            with tempfile.TemporaryDirectory(dir=folder, prefix=".init.") as temporary:
                draft = StudyFolder(Path(temporary))
                write_text(draft.study_file, study_text)
                write_text(draft.server_file, commented_yaml(server, _SERVER_HEADER))
                _make_certificates(draft, name, server, offline_ca, passphrase)
                draft.sites.mkdir()
                draft.kits.mkdir()
                # server.yaml last: a folder that has it has everything.
                for child in sorted(draft.root.iterdir(), key=lambda child: child == draft.server_file):
                    child.rename(folder / child.name)
    except OSError as error:
        where = error.filename or folder
        raise InputError(f"{where}: cannot be written: {error.strerror}; choose another folder") from None
    return StudyFolder(folder)


def open_study(folder: Path) -> StudyFolder:
    """The study folder that `init_study` made.

    Raises:
        InputError: there is none, or other accounts may enter it.
    """
    study = StudyFolder(folder)
    if not study.server_file.is_file():
        raise InputError(f"{folder}: no study folder; make one with `msfl-server init {quoted(folder)} --host HOST`")
    check_private(folder)
    return study


def authority_key(
    study: StudyFolder, path: Path | None = None, passphrase_file: Path | None = None
) -> ec.EllipticCurvePrivateKey:
    """The authority's key, from `pki/` or where it lies; see `load_authority_key`."""
    authority = read_certificate(study.ca_certificate, RESTORE)
    return load_authority_key(path or study.ca_key, authority, passphrase_file)


def renew_certificate(
    study: StudyFolder, ca_key: ec.EllipticCurvePrivateKey | None = None, new_key: bool = False
) -> int:
    """Sign a new certificate for the hosts of `server.yaml`; the days until it expires.

    The authority stays, so sites need nothing new as long as the address that they use stays. Kits are made anew, for
    sites to come and for those whose address changed.

    Args:
        study: the study folder.
        ca_key: the authority's key; without it, the one in `pki/`.
        new_key: the server gets a new key, and kits say that its certificates of before are void.

    Raises:
        InputError: the authority is incomplete or has expired.
    """
    server = load_server(study.server_file)
    authority = Pair(read_certificate(study.ca_certificate, RESTORE), ca_key or authority_key(study))
    if expires_in_days(authority.certificate) < 0:
        raise InputError(f"{study.ca_certificate}: has expired; make a new study folder with `msfl-server init`")
    # Later than every certificate that is void or will be, whatever this machine's clock says.
    last = read_certificate(study.server_certificate, RESTORE).not_valid_before_utc
    last = last if new_key else max(last, server_since(study))
    now = max(datetime.now(UTC), last + BACKDATED + timedelta(seconds=1))
    renewed = issue_server_certificate(authority, server.hosts, None if new_key else _read_key(study.server_key), now)
    if new_key:
        write_text(study.server_since, renewed.certificate.not_valid_before_utc.isoformat() + "\n")
        write_bytes(study.server_key, renewed.key_pem, secret=True)
    write_bytes(study.server_certificate, renewed.certificate_pem)
    for site in list_sites(study):
        make_kit(study, site, authority.key)
    return expires_in_days(renewed.certificate)


def open_notary(study: StudyFolder) -> Notary:
    """Who countersigns the ends of the sites' ledgers, with the server's key.

    Raises:
        InputError: key, certificate or the file of what was seen are missing or damaged.
    """
    server = _read_pair(study.server_certificate, study.server_key)
    name = load_study(study.study_file).name
    return Notary(study.ledger_heads, name, server.key, server.certificate_pem.decode(), study.sites)


def certificate_warning(study: StudyFolder) -> str | None:
    """One sentence when a certificate expires within 30 days or lacks a host of `server.yaml`, else None.

    Raises:
        InputError: a certificate or the server's key is missing or damaged.
    """
    server = _read_pair(study.server_certificate, study.server_key).certificate
    renew = f"run `msfl-server renew-certificate {quoted(study.root)}`; sites need nothing new"
    missing = [host for host in load_server(study.server_file).hosts if not covers(server, host)]
    return (
        expiry_warning(
            "the study's certificate authority",
            read_certificate(study.ca_certificate, RESTORE),
            "make a new study folder with `msfl-server init`, and hand new kits to the sites",
        )
        or expiry_warning("the server certificate", server, renew)
        or (f"the server certificate is not good for {', '.join(missing)}; {renew}" if missing else None)
    )


def _make_certificates(
    study: StudyFolder, name: str, server: ServerConfig, offline_ca: Path | None, passphrase: bytes | None
) -> None:
    authority = make_authority(name)
    issued = issue_server_certificate(authority, server.hosts)
    write_bytes(study.server_key, issued.key_pem, secret=True)
    write_bytes(study.ca_certificate, authority.certificate_pem)
    write_bytes(study.server_certificate, issued.certificate_pem)
    write_text(study.server_since, issued.certificate.not_valid_before_utc.isoformat() + "\n")
    write_authority_key(offline_ca / "ca.key" if offline_ca else study.ca_key, authority.key, passphrase)


def _read_pair(certificate_file: Path, key_file: Path) -> Pair:
    pair = Pair(read_certificate(certificate_file, RESTORE), _read_key(key_file))
    if pair.certificate.public_key() != pair.key.public_key():
        raise InputError(f"{key_file}: is not the key of {certificate_file}; {RESTORE}")
    return pair


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_bounded(path, MOST_KEY), password=None)
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, RESTORE)}") from None
    except (ValueError, TypeError):
        raise InputError(f"{path}: holds no private key; {RESTORE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{path}: is not the key that `msfl-server init` made; {RESTORE}")
    return key


def is_name(text: str) -> bool:
    """Whether a site or a study may be called so."""
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True


def list_sites(study: StudyFolder) -> list[str]:
    """Names of the authorised sites, in alphabetical order."""
    return sorted(path.stem for path in study.sites.glob("*.pub") if not path.name.startswith("."))
