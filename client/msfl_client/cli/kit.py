"""Commands of `msfl-client` that take over, and approve, the coordinator's joining kit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfl_client.cli.options import SitePath
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_common.config.site import SiteConfig
    from msfl_common.trust.kit import SignedKit

commands = Commands()

Yes = Annotated[bool, typer.Option("--yes", help="Approve without being asked; never another authority.")]
Fingerprint = Annotated[
    str | None, typer.Option(metavar="HEX", help="Approve without being asked if the authority has this fingerprint.")
]


@commands.command()
def join(
    archive: Annotated[Path, typer.Argument(metavar="KIT.zip", help="The joining kit that the coordinator sent.")],
    site: SitePath,
    yes: Yes = False,
    fingerprint: Fingerprint = None,
    as_json: Json = False,
) -> None:
    """Take over a joining kit: check it, show what it asks and whom it trusts, and, after a yes, keep it."""
    from msfl_common.errors import InputError
    from msfl_common.system.files import whole_folder, write_bytes
    from msfl_common.trust.kit import parse_kit
    from msfl_common.trust.kit_archive import unpack_kit

    config = _load(site)
    kit = parse_kit(unpack_kit(archive), str(archive))
    _check_replaceable(config.kit)
    _ask(config, kit, archive, yes, fingerprint, as_json)
    try:
        with whole_folder(config.kit) as folder:
            for name, content in kit.files.items():
                write_bytes(folder / name, content)
    except PermissionError:
        raise InputError(
            f"{config.kit.parent}: this account may not write there; run as the site's own, or correct `kit:`"
        ) from None
    _keep(config, kit, as_json)


@commands.command()
def approve(site: SitePath, yes: Yes = False, fingerprint: Fingerprint = None, as_json: Json = False) -> None:
    """Show the kit that lies in the kit's folder, or how it differs from the approved one, and approve it."""
    from msfl_common.trust.kit import read_kit

    config = _load(site)
    kit = read_kit(config.kit)
    _ask(config, kit, config.kit, yes, fingerprint, as_json)
    _keep(config, kit, as_json)


def _load(site: Path) -> SiteConfig:
    from msfl_common.config.site import load_site

    return load_site(site)


def _ask(site: SiteConfig, kit: SignedKit, source: Path, yes: bool, fingerprint: str | None, as_json: bool) -> None:
    """Show the kit, which `source` holds, and have a yes; on stderr where stdout is a document's.

    Raises:
        InputError: it is another site's, or the answer is no.
    """
    from msfl_client.cli.kit_view import is_approved, print_kit
    from msfl_client.site.kit_approval import approved_kit, check_site
    from msfl_common.config.site import unused_by_site
    from msfl_common.errors import InputError
    from msfl_common.models.unused_settings import unused_settings
    from msfl_common.system.progress import PlainConsole, warn

    check_site(site, kit, source)
    console = PlainConsole(stderr=as_json, soft_wrap=True)
    lost = False
    try:
        approved = approved_kit(site)
    except InputError as error:  # its authority has expired, say: whether the new one is the same cannot be told
        console.print(f"The approved kit cannot be used any more: {error}")
        approved, lost = None, True
    print_kit(console, site.policy, kit, approved)
    warn([*unused_by_site(site), *unused_settings(kit.study)])
    if not is_approved(console, kit, approved, yes, fingerprint, lost):
        raise InputError("not approved; nothing was changed")


def _keep(site: SiteConfig, kit: SignedKit, as_json: bool) -> None:
    from msfl_client.site.kit_approval import approve_kit
    from msfl_common.system.progress import stdout_console
    from msfl_common.trust.kit import fingerprint as authority_of

    approve_kit(site, kit)
    if as_json:
        authority = authority_of(kit.authority)
        print_json({"site": site.name, "study": kit.kit.study, "approved_kit": kit.digest, "ca_sha256": authority})
        return
    console = stdout_console(soft_wrap=True)
    console.print(
        f"{site.name}: the kit of study {kit.kit.study} is approved. Next: `msfl-client check SITE.yaml`; a site that "
        "runs already takes it up by itself."
    )


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything else than a kit."""
    from msfl_common.errors import InputError
    from msfl_common.trust.kit import KIT_FILES

    if folder.exists() and (not folder.is_dir() or {entry.name for entry in folder.iterdir()} - set(KIT_FILES)):
        raise InputError(f"{folder}: holds other files than a kit's; move it away, or correct `kit:`")
