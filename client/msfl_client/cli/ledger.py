"""Commands of `msfl-client` that show and prove what has left the site."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msfl_client.cli.options import SitePath
from msfl_common.system.command_line import Commands, Json, print_json

if TYPE_CHECKING:
    from msfl_client.egress.ledger_proof import Proof
    from msfl_common.config.site import SiteConfig

commands = Commands()

Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="File with the passphrase; without it, it is asked for."),
]


@commands.command()
def ledger(
    site: SitePath,
    verify: Annotated[bool, typer.Option("--verify", help="Only check every line; exit code 2 if touched.")] = False,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE.csv", help="Write every entry to a table.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="PAGE.html", help="Write a page for the data protection officer.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--open", min=1, metavar="NUMBER", help="Decrypt what was kept of this line.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="KEY_FILE", help="The officer's key, for --open.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.safetensors", help="Where --open writes the arrays.")
    ] = None,
    passphrase_file: Passphrase = None,
    last: Annotated[int, typer.Option("--last", min=1, metavar="NUMBER", help="Entries shown, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what has left the site: every message, its size and its hash, never what it held.

    SITE.yaml is the site's own file. The whole chain of lines, the site's signatures and the coordinator's receipts
    are checked first; exit code 2 when something was touched. --open takes what the site has kept, encrypted, of one
    message (`policy.keep_content`), and checks that it is what left.
    """
    from msfl_client.cli.ledger_view import CSV_START, export_csv, overview, overview_document, print_overview
    from msfl_client.egress.budget_record import budget_lines
    from msfl_client.egress.ledger_page import PAGE_START
    from msfl_client.egress.ledger_proof import Proof
    from msfl_client.privacy.budget import spent_document, spent_lines
    from msfl_common.config.site import load_site
    from msfl_common.errors import InputError
    from msfl_common.system.files import check_replaceable
    from msfl_common.system.progress import stdout_console

    if number is not None and (verify or export or report):
        raise InputError("--open: goes alone; leave out --verify, --export and --report")
    if number is None and (key or output):
        raise InputError("--key and --output: belong to --open NUMBER")
    _check_suffix("--export", export, ".csv")
    _check_suffix("--report", report, ".html")
    for page, mark in ((export, CSV_START), (report, PAGE_START)):
        if page is not None:
            check_replaceable(page, mark)
    config = load_site(site)
    proof = Proof.of(config)
    console = stdout_console(soft_wrap=True)
    if number is not None:
        _open(config, proof, number, key, output, passphrase_file, as_json)
        return
    found = overview(proof.lines(), last)  # the lines are checked as they are read
    if export is not None:
        export_csv(export, proof.lines())
    budget = () if verify else budget_lines(config)
    document = _write_report(config, proof, report) if report is not None else None
    if as_json:
        document = document or overview_document(config.name, found, proof) | {
            "budget": [asdict(one) for one in budget]
        }
        document = {**document, "differential_privacy": spent_document(config.state, config.policy.max_epsilon)}
        print_json(document)
        return
    written = [str(path) for path in (export, report) if path is not None]
    if not verify and not written and found.last:
        print_overview(stdout_console(), config.name, found)
    for sentence in (*proof.sentences, *spent_lines(config.state, config.policy.max_epsilon)):
        console.print(sentence)
    for line in () if verify else budget:
        console.print(str(line), markup=False, highlight=False)
    if written:
        console.print(f"written: {', '.join(written)}")


@commands.command("make-officer-key")
def make_officer_key_command(
    key: Annotated[
        Path, typer.Argument(metavar="KEY_FILE", help="The private key to make; KEY_FILE.pub is the public one.")
    ],
    passphrase_file: Passphrase = None,
    as_json: Json = False,
) -> None:
    """Make the data protection officer's key pair, on the officer's own machine; only KEY_FILE.pub goes to the site.

    The site encrypts what it sends to it (`policy.keep_content.public_key`), and cannot open it itself. Both files are
    age's, so `age` opens what is kept, too.
    """
    from msfl_client.egress.ledger_content import make_officer_key
    from msfl_common.system.progress import stdout_console

    made = make_officer_key(key, _passphrase(passphrase_file, is_new=True))
    if as_json:
        document = {
            "key": str(made.key),
            "public_key_file": str(made.public_key_file),
            "public_key": made.public_key,
        }
        print_json(document)
        return
    console = stdout_console(soft_wrap=True)
    console.print(f"{made.key} is made; keep it, and its passphrase, away from the site's machine.")
    console.print(f"Next: hand {made.public_key_file} to the site, for `policy.keep_content.public_key`.")


def _write_report(config: SiteConfig, proof: Proof, page: Path) -> dict[str, Any]:
    """Write the page; its figures."""
    from msfl_client.egress.ledger_facts import gather_facts
    from msfl_client.egress.ledger_page import write_page

    facts = gather_facts(config, proof)
    write_page(page, facts)
    return facts.document


def _open(
    config: SiteConfig,
    proof: Proof,
    number: int,
    key: Path | None,
    output: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    from safetensors.numpy import save

    from msfl_client.egress.ledger_content import SENT_FOLDER, open_content, read_officer_key
    from msfl_common.errors import InputError
    from msfl_common.system.files import check_replaceable, write_bytes, write_json
    from msfl_common.system.progress import stdout_console

    if key is None or output is None:
        raise InputError("--open: expected --key with the officer's key, and --output")
    _check_suffix("--output", output, ".safetensors")
    line = next((line for line in list(proof.lines()) if line.number == number), None)
    if line is None:
        raise InputError(f"--open {number}: the ledger has {proof.num_lines} lines")
    for file in (output, output.with_suffix(".json")):
        check_replaceable(file)
    officer = read_officer_key(key, _passphrase(passphrase_file, is_new=False))
    opened = open_content(config.state / SENT_FOLDER, line, officer)
    document = {"line": line.model_dump(), "numbers": opened.numbers}
    write_bytes(output, save(opened.arrays), secret=True)
    write_json(output.with_suffix(".json"), document)
    if as_json:
        print_json(document)
        return
    console = stdout_console(soft_wrap=True)
    console.print(f"line {number}, {line.kind} of {line.time}: what was kept is what left (SHA-256 {line.sha256})")
    for record, values in opened.numbers.items():
        for name, value in values.items():
            console.print(f"  {record}/{name}: {value}")
    console.print(f"written: {output} ({len(opened.arrays)} arrays) and {output.with_suffix('.json')}")


def _check_suffix(option: str, path: Path | None, suffix: str) -> None:
    from msfl_common.errors import InputError

    if path is not None and path.suffix != suffix:
        raise InputError(f"{option} {path}: expected a name that ends in {suffix}")


def _passphrase(file: Path | None, is_new: bool) -> str:
    from msfl_client.site.passphrase import ask_passphrase, new_passphrase
    from msfl_common.errors import InputError, unreadable
    from msfl_common.system.reading import MOST_KEY, read_bounded

    if file is None:
        otherwise = "use --passphrase-file FILE"
        if is_new:
            return new_passphrase("the officer", otherwise).decode()
        return ask_passphrase("Passphrase of the officer's key: ", otherwise)
    try:
        return read_bounded(file, MOST_KEY).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"--passphrase-file {file}: no text; name the file with the passphrase") from None
    except OSError as error:
        raise InputError(
            f"--passphrase-file {file}: {unreadable(error, 'name the file with the passphrase')}"
        ) from None
