"""`msfl-client roster`: who takes part in a study's masked sums, for a person to compare and confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfl_client.cli.options import SitePath
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from msfl_client.secure_aggregation.rosters import Rosters
    from msfl_common.config.site import SiteConfig
    from msfl_common.secure_aggregation.roster import Roster

commands = Commands()
_WORDS_A_LINE = 6


@commands.command()
def roster(
    site: SitePath,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm",
            metavar="WORDS",
            help="Confirm the roster whose 24 words, or 64 hexadecimal digits, the other sites' people read out.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show who takes part in a study's masked sums, with which keys, and let a person confirm it.

    The roster comes from the coordinator, and so proves nothing by itself: compare its words over the telephone with
    the people of the other sites. Until it is confirmed, nothing of this site is added up.
    """
    from msfl_client.secure_aggregation.rosters import rosters_here
    from msfl_common.config.site import load_site
    from msfl_common.errors import InputError
    from msfl_common.system.progress import stdout_console

    config = load_site(site)
    found = [(study, rosters, newest) for study, rosters in rosters_here(config.state) if (newest := rosters.newest())]
    if not found:
        raise InputError(
            f"{config.state}: no roster is here; it comes with the first request of a study whose sums are masked"
        )
    if confirm is not None:
        study = _confirm(config, [(rosters, newest) for _, rosters, newest in found], confirm)
        if not as_json:
            console = stdout_console(soft_wrap=True)
            console.print(
                f"{config.name}: the roster of study {study} is confirmed; a site that runs goes on by itself"
            )
    if as_json:
        print_json({"site": config.name, "rosters": [_document(rosters, newest) for _, rosters, newest in found]})
    elif confirm is None:
        for _, rosters, newest in found:
            _print(stdout_console(soft_wrap=True), config, rosters, newest)


def _confirm(site: SiteConfig, found: list[tuple[Rosters, Roster]], said: str) -> str:
    """Confirm the newest roster of the study whose digest it is; the ledger says so first. The study's name.

    Raises:
        InputError: it is no digest, or none of a roster that is here; or the ledger was touched.
    """
    from msfl_client.egress.person_lines import write_confirmed
    from msfl_common.errors import InputError
    from msfl_common.secure_aggregation.spoken import digest_of

    try:
        digest = digest_of(said)
    except InputError as error:
        raise InputError(f"--confirm: {error}") from None
    for rosters, newest in found:
        if newest.digest == digest:
            if rosters.state().waits:
                write_confirmed(site, newest)
                rosters.confirm(digest)
            return newest.study
    raise InputError(
        "--confirm: is not the digest of the roster that is here: the sites were shown different rosters, or one was "
        "misheard; compare again, and do not confirm before all have the same words"
    )


def _document(rosters: Rosters, newest: Roster) -> dict[str, Any]:
    from msfl_common.secure_aggregation.spoken import words_of

    state = rosters.state()
    confirmed = None if state.waits else state.confirmed.get(newest.digest)
    return {
        "study": newest.study,
        "digest": newest.digest,
        "words": words_of(newest.digest),
        "confirmed": confirmed.isoformat() if confirmed else None,
        "threshold": newest.threshold,
        "min_sites": newest.min_sites,
        "fewest_colluders": newest.fewest_colluders,
        "sites": [{"site": name, "key_sha256": key, "change": change} for name, key, change in _rows(newest, rosters)],
    }


def _rows(newest: Roster, rosters: Rosters) -> list[tuple[str, str, str]]:
    """Name, fingerprint of the registered key, and what has changed since the roster that was confirmed before."""
    from msfl_common.trust.receipts import Owner

    before = rosters.confirmed_before()
    rows = []
    for entry in newest.sites:
        change = ""
        if before is not None and entry.site not in before.names:
            change = "new"
        elif before is not None and before.site_key(entry.site) != newest.site_key(entry.site):
            change = "another registered key"
        elif before is not None and before.entry(entry.site).mask_key != entry.mask_key:
            change = "new key for masks"
        rows.append((entry.site, Owner(entry.site, newest.site_key(entry.site)).fingerprint, change))
    left = [] if before is None else [name for name in before.names if name not in newest.names]
    return rows + [(name, "", "left") for name in left]


def _print(console: Console, site: SiteConfig, rosters: Rosters, newest: Roster) -> None:
    from msfl_common.secure_aggregation.spoken import words_of

    state = rosters.state()
    confirmed = None if state.waits else state.confirmed.get(newest.digest)
    said = f"confirmed here on {confirmed:%Y-%m-%d %H:%M} UTC" if confirmed else "waits to be confirmed here"
    console.print(f"Study {newest.study}: roster of {len(newest.sites)} sites, {said}", markup=False, highlight=False)
    for name, key, change in _rows(newest, rosters):
        mine = " (this site)" if name == site.name else ""
        about = f"  registered key {key[:16]}" if key else ""
        console.print(f"  {name}{mine}{about}{f'  {change}' if change else ''}", markup=False, highlight=False)
    console.print(
        f"A sum of these sites' values is opened by {newest.threshold} of them, and has at least "
        f"{max(newest.min_sites, newest.threshold)}.",
        highlight=False,
    )
    console.print(
        f"With {newest.fewest_colluders} of them on its side, the coordinator could learn another one's own value.",
        highlight=False,
    )
    console.print(
        "A site whose people you cannot reach, at a number that others gave you, may be the coordinator's own."
    )
    console.print("Its words, to be compared over the telephone with the people of the other sites:")
    words = words_of(newest.digest)
    for start in range(0, len(words), _WORDS_A_LINE):
        console.print("    " + "  ".join(words[start : start + _WORDS_A_LINE]), highlight=False)
    console.print(f"The same as digits: {newest.digest}", highlight=False)
    if confirmed is None:
        console.print('When all have the same: `msfl-client roster SITE.yaml --confirm "WORDS"`')
