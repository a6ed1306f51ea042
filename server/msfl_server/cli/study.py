"""Commands of `msfl-server` that make and change a study folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_common.config.study import StudyConfig

commands = Commands()

StudyDir = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="Folder of the study.")]
SiteName = Annotated[str, typer.Argument(metavar="SITE_NAME", help="Name of the site.")]
CaKey = Annotated[
    Path | None, typer.Option(metavar="KEY_FILE", help="The authority's key, where it is not in the study folder.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the passphrase of the authority's key; else it is asked for."),
]


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="Folder to make; must be empty.")],
    host: Annotated[
        list[str], typer.Option(metavar="HOST", help="Host name or IP address that sites use; repeat it for more.")
    ],
    study: Annotated[Path | None, typer.Option(metavar="STUDY.yaml", help="The study; without it, a default.")] = None,
    template: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with an example of `msfl-server example`, such as study.")
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", help="Port for sites.")] = 9443,
    public_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port that sites use when a reverse proxy stands in front.")
    ] = None,
    control_port: Annotated[int, typer.Option(metavar="PORT", help="Port for this machine alone.")] = 9444,
    offline_ca: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the authority's key there, to be moved to another machine."),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that encrypts the authority's key.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make a study folder: settings, and a certificate authority and server certificate of its own."""
    from msfl_common.config.base import validate
    from msfl_common.config.examples import study_template
    from msfl_common.config.study import load_study
    from msfl_common.system.files import quoted
    from msfl_common.trust.kit import fingerprint, read_certificate
    from msfl_server.study.authority_key import new_passphrase, read_passphrase
    from msfl_server.study.folder import init_study
    from msfl_server.study.server_config import ServerConfig

    asked = {"hosts": host, "port": port, "public_port": public_port, "control_port": control_port}
    server = validate(ServerConfig, asked, "init")
    secret = read_passphrase(passphrase_file) if passphrase_file else new_passphrase() if passphrase else None
    made = init_study(
        folder, server, study, offline_ca, secret, study_template(template, study) if template is not None else None
    )
    authority, certificate = read_certificate(made.ca_certificate), read_certificate(made.server_certificate)
    settings = load_study(made.study_file)
    name = settings.name
    _show(
        as_json,
        {
            "warnings": _unused(settings),
            "study_dir": str(folder),
            "study": name,
            "address": server.address,
            "ca_sha256": fingerprint(authority),
            "ca_expires": authority.not_valid_after_utc.isoformat(),
            "server_certificate_expires": certificate.not_valid_after_utc.isoformat(),
        },
        f"Study {name} is made in {folder}; sites reach it at {server.address}.",
        f"Its certificate authority is valid until {authority.not_valid_after_utc:%Y-%m-%d}, the server certificate "
        f"until {certificate.not_valid_after_utc:%Y-%m-%d}. Keep a backup of {made.ca_key.parent}; it is secret.",
        f"Move {offline_ca} to another machine: whoever has the key in it can make kits that sites trust."
        if offline_ca
        else f"The authority's key, {made.ca_key}, need not stay here: `start` does not use it.",
        f"Next: look through {made.study_file}, then authorise each site with "
        f"`msfl-server add-site {quoted(folder)} NAME --public-key FILE`.",
    )


@commands.command("add-site")
def add_site_command(
    folder: StudyDir,
    name: SiteName,
    public_key: Annotated[Path, typer.Option(metavar="KEY_FILE", help="The site's public key, site.key.pub.")],
    ca_key: CaKey = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Authorise a site by its public key, and make its joining kit."""
    from msfl_common.config.study import load_study
    from msfl_common.trust.kit import load_kit, spoken
    from msfl_server.study.folder import authority_key, open_study
    from msfl_server.study.sites import add_site

    study = open_study(folder)
    archive = add_site(study, name, public_key, authority_key(study, ca_key, passphrase_file))
    fingerprint = load_kit(study.kit(name)).ca_sha256
    _show(
        as_json,
        {
            "warnings": _unused(load_study(study.study_file)),
            "site": name,
            "kit": str(study.kit(name)),
            "kit_archive": str(archive),
            "ca_sha256": fingerprint,
        },
        f"Site {name} is authorised.",
        f"Next: hand {archive} to the site; it holds no secret. The site takes it over with "
        f"`msfl-client join {archive.name} site.yaml`, and is shown the authority's fingerprint.",
        "Over the telephone, compare it with this one:",
        spoken(fingerprint),
    )


@commands.command("remove-site")
def remove_site_command(folder: StudyDir, name: SiteName, as_json: Json = False) -> None:
    """Take a site's authority away, and its joining kit."""
    from msfl_server.study.folder import list_sites, open_study
    from msfl_server.study.sites import remove_site

    study = open_study(folder)
    remove_site(study, name)
    left = list_sites(study)
    _show(
        as_json,
        {"removed": name, "sites": left},
        f"Site {name} is removed; left: {', '.join(left) or 'none'}.",
        "A running server does not take its key back: to come again, the site makes a new one.",
    )


@commands.command("renew-certificate")
def renew_certificate_command(
    folder: StudyDir,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Give up the server's key, which may be stolen: sites need new kits.")
    ] = False,
    ca_key: CaKey = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Sign a new server certificate for the hosts of server.yaml, and make the kits anew.

    Sites need nothing new, unless the address that they use has changed or the server's key was given up.
    """
    from msfl_server.study.folder import authority_key, open_study, renew_certificate

    study = open_study(folder)
    days = renew_certificate(study, authority_key(study, ca_key, passphrase_file), new_key)
    needs = (
        f"Hand every site its new kit, in {study.kits}: until it is approved there, the site trusts the old key, too."
        if new_key
        else f"Sites need nothing new, unless the address that they use has changed: then hand them the kits in "
        f"{study.kits}."
    )
    _show(
        as_json,
        {"certificate": str(study.server_certificate), "expires_in_days": days},
        f"The server certificate is valid for {days} days; restart the server to use it. {needs}",
    )


@commands.command("renew-kits")
def renew_kits_command(
    folder: StudyDir, ca_key: CaKey = None, passphrase_file: PassphraseFile = None, as_json: Json = False
) -> None:
    """Make the kits anew that hold another study than study.yaml. A person at each site has to approve the change."""
    from msfl_server.study.folder import authority_key, open_study
    from msfl_server.study.sites import refresh_kits, stale_kits

    study = open_study(folder)
    renewed = refresh_kits(study, authority_key(study, ca_key, passphrase_file)) if stale_kits(study) else []
    _show(
        as_json,
        {"sites": renewed, "kits": [str(study.kit_archive(site)) for site in renewed]},
        f"Hand the new kits in {study.kits} to {', '.join(renewed)}." if renewed else "Every kit holds study.yaml.",
    )


def _unused(study: StudyConfig) -> list[str]:
    """Settings that have no effect; they are said on stderr, too."""
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.progress import warn

    warn(lines := unused_settings(study))
    return lines


def _show(as_json: bool, document: dict[str, Any], *lines: str) -> None:
    """The document for programs, or the lines for people; on stdout."""
    if as_json:
        print_json(document)
        return
    from msfl_common.system.progress import stdout_console

    console = stdout_console(soft_wrap=True)
    for line in lines:
        console.print(line)
