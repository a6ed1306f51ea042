"""`msfl-client init`: a site's file and key, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_client.site.folder import init_site
from msfl_client.site.keys import load_key
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "our scans").mkdir()
    return tmp_path / "our scans"


def test_what_is_made_loads(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "site"
    made = init_site(folder, "hospital-a", data)
    site = load_site(made.site_file)
    assert site == SiteConfig(
        name="hospital-a", data=(data,), state=folder / "state", kit=folder / "kit", key=folder / "site.key"
    )
    load_key(site.key)
    assert made.public_key_file.read_text() == made.public_key + "\n"


@pytest.mark.parametrize("name", ["site.yaml", "site.key", "site.key.pub"])
def test_nothing_is_overwritten(tmp_path: Path, data: Path, name: str) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        init_site(folder, "a", data)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize(("name", "data_name", "text"), [("a b", "our scans", "name: found"), ("a", "x", "no such")])
def test_bad_input_writes_nothing(tmp_path: Path, data: Path, name: str, data_name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        init_site(tmp_path / "site", name, tmp_path / data_name)
    assert not (tmp_path / "site").exists()


def msfl_client(*arguments: object) -> CompletedProcess[str]:
    return run_main(main, *arguments)


def test_the_command_prints_the_public_key_and_the_next_step(tmp_path: Path, data: Path) -> None:
    done = msfl_client("init", tmp_path / "site", "--name", "a", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "site.key.pub").read_text() in done.stdout
    assert f"msfl-client check {tmp_path / 'site' / 'site.yaml'}" in done.stdout
    again = msfl_client("init", tmp_path / "site", "--name", "a", "--data", data, "--json")
    assert (again.returncode, again.stdout, len(again.stderr.splitlines())) == (2, "", 1)
    document = json.loads(msfl_client("init", tmp_path / "b", "--name", "b", "--data", data, "--json").stdout)
    assert document["public_key"] == (tmp_path / "b" / "site.key.pub").read_text().strip()
    assert "PRIVATE" not in json.dumps(document)


def test_commands_to_type_are_quoted_and_take_the_folder(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "Köln Klinik"
    done = msfl_client("init", folder, "--name", "a", "--data", data)
    assert f"msfl-client check '{folder / 'site.yaml'}'" in done.stdout
    assert load_site(folder) == load_site(folder / "site.yaml")
    status = msfl_client("status", folder)
    assert (status.returncode, status.stderr) == (1, "")
    started, kit, budget = status.stdout.splitlines()
    assert started == f"a: not running; start it with `msfl-client start '{folder}'`"
    assert kit.startswith(f"{folder / 'kit'}: no joining kit; ")
    assert str(folder / "state") in budget
