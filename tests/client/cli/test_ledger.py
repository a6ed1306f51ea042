"""`msfl-client ledger`, as a data protection officer would use it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.commands import run_main

from msfl_client.cli.ledger_view import COLUMNS, export_csv
from msfl_client.cli.main import main
from msfl_client.egress.gateway import gateway_of, release, release_refusal
from msfl_client.egress.ledger import append, read
from msfl_client.egress.ledger_line import Entry
from msfl_client.site.keys import make_key
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.messages.records import ModelUpdate, Refusal


def run(*arguments: object) -> CompletedProcess[str]:
    return run_main(main, "ledger", *arguments, columns=140)


def message(number: int, kind: str = "model_update", study: str = "pilot") -> Entry:
    return Entry(
        kind=kind,
        study=study,
        round=number,
        arrays={"conv.weight": [4, 2], "conv.bias": [4]},
        numbers=["num-examples", "train-loss"],
        num_bytes=1500,
        sha256=f"{number:064x}"[::-1],
        num_cases=9,
        version="0.1.0",
    )


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text("name: here\ndata: bids\nstate: state\n")
    return path


@pytest.fixture
def ledger(site_file: Path) -> Path:
    path = site_file.parent / "state" / "ledger.jsonl"
    for number in range(1, 26):
        append(path, message(number))
    append(path, message(1, "node_facts", "other"))
    return path


def test_the_table_shows_the_newest_entries_and_all_totals(site_file: Path, ledger: Path) -> None:
    done = run(site_file)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.replace("│", " ").split()) for line in done.stdout.splitlines()]
    assert "What left here: last 20 of 26" in lines
    rows = [line for line in lines if "model_update pilot" in line and "kB 9" in line]
    assert len(rows) == 19
    assert rows[-1].endswith("model_update pilot 25 1.5 kB 9 2, 2 910000000000")
    assert "pilot model_update 25 37.5 kB" in lines
    assert "other node_facts 1 1.5 kB" in lines
    assert any(line.startswith("26 lines, none touched") for line in lines)


def test_json_is_one_document(site_file: Path, ledger: Path) -> None:
    document = json.loads(run(site_file, "--json", "--last", 3).stdout)
    assert (document["site"], document["num_lines"]) == ("here", 26)
    assert [entry["number"] for entry in document["last"]] == [24, 25, 26]
    assert document["hash"] == document["last"][-1]["hash"]
    assert document["totals"][1] == {"study": "pilot", "kind": "model_update", "messages": 25, "num_bytes": 37500}


def test_verify_says_how_many_lines_hold_and_names_the_first_that_does_not(site_file: Path, ledger: Path) -> None:
    done = run(site_file, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    *_, last = read(ledger)
    assert done.stdout.splitlines() == [
        f"26 lines, none touched; the last, of {last.time}, has the hash {last.hash}",
        "Signed: none; this site has no key",
        "Countersigned: none; there is no joining kit to check with",
    ]
    ledger.write_bytes(ledger.read_bytes().replace(b'"round":7,', b'"round":8,'))
    for arguments in (["--verify"], ["--verify", "--json"], [], ["--export", ledger.with_name("out.csv")]):
        done = run(site_file, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"{ledger}: line 7 was edited\n"
    assert not ledger.with_name("out.csv").exists()


def test_an_export_holds_every_entry(site_file: Path, ledger: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    done = run(site_file, "--export", target)
    assert (done.returncode, done.stderr) == (0, "")
    with target.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    for row, line in zip(rows, read(ledger), strict=True):
        others = {name: value for name, value in row.items() if name not in ("arrays", "numbers", "in_sum")}
        assert {name: str(getattr(line, name)) for name in others} == others
        assert (row["in_sum"], line.in_sum) == ("", None)
        assert json.loads(row["arrays"]) == line.arrays
        assert json.loads(row["numbers"]) == line.numbers


@pytest.mark.parametrize("start", list("=+-@\t\r\n"))
def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    hostile = message(1, kind=f"{start}cmd|' /C calc'!A0", study=f'{start}HYPERLINK("x"),"')
    append(tmp_path / "ledger.jsonl", hostile)
    export_csv(tmp_path / "out.csv", read(tmp_path / "ledger.jsonl"))
    with (tmp_path / "out.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert f"'{hostile.kind}" in cells
    assert f"'{hostile.study}" in cells
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n"))]


def test_every_exported_column_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "ledger.md").read_text()
    assert [column for column in COLUMNS if f"`{column}`" not in page] == []


def test_an_export_never_replaces_another_kind_of_file(site_file: Path, ledger: Path) -> None:
    before = ledger.read_bytes()
    done = run(site_file, "--export", ledger)
    assert (done.returncode, done.stderr) == (2, f"--export {ledger}: expected a name that ends in .csv\n")
    assert ledger.read_bytes() == before


def test_results_replace_only_such_results(site_file: Path, ledger: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "t.csv", tmp_path / "p.html"
    for _ in range(2):  # again and again, as every month
        assert run(site_file, "--export", table, "--report", page).returncode == 0
    for option, path in (("--export", table), ("--report", page)):
        path.write_text("of another program\n")
        done = run(site_file, option, path)
        assert (done.returncode, path.read_text()) == (2, "of another program\n")
        assert done.stderr == f"{path}: is there already, and nothing that this command wrote; name another file\n"


def test_a_site_that_has_sent_nothing(site_file: Path) -> None:
    for arguments in ([], ["--verify"]):
        done = run(site_file, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "The ledger is empty: nothing has left this site.\n"
    assert json.loads(run(site_file, "--json").stdout)["num_lines"] == 0


def test_the_page_tells_what_left_and_opens_offline(site_file: Path, ledger: Path) -> None:
    refusal = message(0, "refusal").model_copy(
        update={"code": "OUTSIDE_HOURS", "late": "2026-01-02T03:04:05.000001+00:00"}
    )
    append(ledger, refusal)
    append(ledger, message(1, "<script>alert(1)</script>", "<b>"))
    page = site_file.with_name("page.html")
    facts = json.loads(run(site_file, "--report", page, "--json").stdout)
    text = page.read_text()
    assert not re.search(r"(src|href)=|url\(|@import|<script", text), "nothing is loaded, nothing of a message is run"
    assert "this site computes at other hours of the day" in text
    assert "1 of them written down late" in text
    assert "25 rounds of training answered; the policy allows 1000." in " ".join(text.split())
    assert [study["study"] for study in facts["studies"]] == ["pilot", "other", "<b>"]
    assert facts["studies"][0]["kinds"]["model_update"] == {
        "messages": 25, "num_bytes": 37500, "cases": [9, 9], "smallest": None,
    }  # fmt: skip
    assert (facts["proof"]["lines"], facts["proof"]["signed"], facts["proof"]["countersigned"]) == (28, 0, None)
    ledger.write_bytes(ledger.read_bytes().replace(b'"round":7,', b'"round":8,'))
    page.unlink()
    assert run(site_file, "--report", page).returncode == 2
    assert not page.exists()


def test_table_and_page_are_written_together_and_no_option_is_passed_over(
    site_file: Path, ledger: Path, tmp_path: Path
) -> None:
    done = run(site_file, "--export", tmp_path / "a.csv", "--report", tmp_path / "a.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"written: {tmp_path / 'a.csv'}, {tmp_path / 'a.html'}\n")
    assert (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.html").exists()
    for arguments in (["--open", 1, "--verify"], ["--open", 1, "--report", tmp_path / "b.html"], ["--key", "officer"]):
        done = run(site_file, *arguments)
        assert done.returncode == 2
        assert "--open" in done.stderr
    assert not (tmp_path / "b.html").exists()


@pytest.mark.slow
def test_the_officer_opens_what_left(tmp_path: Path) -> None:
    passphrase, key, site_file = tmp_path / "passphrase", tmp_path / "officer.key", tmp_path / "site.yaml"
    passphrase.write_text("short\n")
    assert run_main(main, "make-officer-key", key, "--passphrase-file", passphrase).returncode == 2
    passphrase.write_text("correct horse battery staple\n")
    made = run_main(main, "make-officer-key", key, "--passphrase-file", passphrase)
    assert made.returncode == 0, made.stderr
    assert key.stat().st_mode & 0o777 == 0o600
    site_file.write_text(
        "name: here\ndata: bids\nstate: state\npolicy: {keep_content: {public_key: officer.key.pub}}\n"
    )
    make_key(tmp_path / "site.key", "here")
    gateway = gateway_of(load_site(site_file))
    release_refusal(gateway, Refusal(Code.NO_CASES, "here"), None)
    weights = {"z": np.ones((2, 2), np.float32), "a": np.arange(3, dtype=np.float32)}
    release(gateway, ModelUpdate(weights, 9, 0.25, 1.0), StudyConfig(name="pilot"), 3, 9)
    output = tmp_path / "two.safetensors"
    options = ("--key", key, "--output", output, "--passphrase-file", passphrase)
    done = run(site_file, "--open", 2, *options)
    assert done.returncode == 0, done.stderr
    assert "what was kept is what left" in done.stdout
    opened = load_file(output)
    assert {name: value.tolist() for name, value in opened.items()} == {"z": [[1, 1], [1, 1]], "a": [0, 1, 2]}
    assert json.loads(output.with_suffix(".json").read_text())["numbers"]["metrics"]["train_loss"] == 0.25
    assert "is there already" in run(site_file, "--open", 2, *options).stderr
    assert run(site_file, "--open", 9, *options).stderr == "--open 9: the ledger has 2 lines\n"
    assert "Signed: 2 of 2 lines, by the key" in run(site_file, "--verify").stdout
