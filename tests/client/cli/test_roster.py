"""What a person sees of a roster, and how it is confirmed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.client.secure_aggregation.members import NAMES, masks_at, roster_of
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.secure_aggregation.rosters import Rosters
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.spoken import words_of


def hand_out(root: Path) -> Roster:
    sites = {name: masks_at(root, name) for name in NAMES}
    roster = roster_of([masks.entry() for masks in sites.values()])
    for name, masks in sites.items():
        masks.take(roster)
        (root / name / "site.yaml").write_text(f"name: {name}\ndata: .\nstate: state\n")
    return roster


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "bern"


def run(*arguments: object) -> CompletedProcess[str]:
    return run_main(main, *arguments)


def test_a_roster_is_shown_confirmed_and_written_down(tmp_path: Path, site: Path) -> None:
    roster = hand_out(tmp_path)
    shown = run("roster", site)
    assert shown.returncode == 0
    text = " ".join(shown.stdout.split())
    assert "roster of 3 sites, waits to be confirmed here" in text
    assert "opened by 2 of them, and has at least 3" in text
    assert "With 2 of them on its side, the coordinator could learn another one's own value." in text
    words = " ".join(words_of(roster.digest))
    assert words in text
    assert roster.digest in text
    said = run("status", site).stdout
    assert "waits for a person here" in said
    assert f"what left with {site / 'state'} (nothing so far)" in said
    assert json.loads(run("status", site, "--json").stdout)["rosters_to_confirm"] == ["pilot"]
    done = run("roster", site, "--confirm", words.upper())
    assert (done.returncode, "is confirmed" in done.stdout) == (0, True)
    assert "confirmed here on 2" in run("roster", site).stdout
    assert json.loads(run("status", site, "--json").stdout)["rosters_to_confirm"] == []
    (line,) = read(site / "state" / LEDGER_FILE)
    assert line.in_sum is not None
    assert (line.kind, line.study, line.in_sum.roster, line.in_sum.sites) == (
        "roster_confirmed",
        "pilot",
        roster.digest,
        NAMES,
    )
    again = run("roster", site, "--confirm", roster.digest, "--json")
    document = json.loads(again.stdout)["rosters"][0]
    assert document["confirmed"]
    assert document["words"] == words_of(roster.digest)
    assert len(list(read(site / "state" / LEDGER_FILE))) == 1, "confirmed once"


def test_what_is_not_the_roster_is_not_confirmed(tmp_path: Path, site: Path) -> None:
    roster = hand_out(tmp_path)
    words = words_of(roster.digest)
    for said, says in (
        ("ab" * 32, "is not the digest of the roster that is here"),
        (" ".join([*words[1:], words[0]]), "misheard"),
        ("yes", "--confirm: expected the 24 words of a digest"),
        (roster.digest[1:], "found 63 digits"),
    ):
        done = run("roster", site, "--confirm", said)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert Rosters(masks_at(tmp_path, "bern").folder).state().waits
    assert not (site / "state" / LEDGER_FILE).exists()


def test_what_has_changed_since_the_last_one_is_named(tmp_path: Path, site: Path) -> None:
    first = hand_out(tmp_path)
    run("roster", site, "--confirm", first.digest)
    shutil.rmtree(masks_at(tmp_path, "oslo").folder)
    entries = [masks_at(tmp_path, name).entry() for name in ("bern", "oslo", "rome")]
    masks_at(tmp_path, "bern").take(roster_of(entries))
    document = json.loads(run("roster", site, "--json").stdout)["rosters"][0]
    changes = {row["site"]: row["change"] for row in document["sites"]}
    assert changes == {"bern": "", "oslo": "new key for masks", "rome": "new", "graz": "left"}
    text = run("roster", site).stdout
    assert "bern (this site)" in text
    assert "waits to be confirmed here" in text


def test_without_a_roster_it_says_when_one_comes(tmp_path: Path, site: Path) -> None:
    site.mkdir()
    (site / "site.yaml").write_text("name: bern\ndata: .\nstate: state\n")
    done = run("roster", site)
    assert (done.returncode, "it comes with the first request" in done.stderr) == (2, True)


@pytest.mark.parametrize("content", ["", '{"newest": ', None])
def test_a_damaged_roster_is_not_said_to_be_none(tmp_path: Path, site: Path, content: str | None) -> None:
    roster = hand_out(tmp_path)
    masks = masks_at(tmp_path, "bern")
    if content is None:
        (masks.folder / "rosters" / f"{roster.digest}.json").write_text("")
    else:
        (masks.folder / "newest-roster.json").write_text(content)
    for command in ("roster", "status"):
        done = run(command, site)
        assert (done.returncode, "damaged; remove" in done.stderr) == (2, True), done.stderr
    (masks.folder / "newest-roster.json").unlink()
    masks.take(roster)
    assert "waits to be confirmed here" in run("roster", site).stdout
