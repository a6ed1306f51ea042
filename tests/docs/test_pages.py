"""What pages say of commands, settings, errors and messages is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from msfl_common.config.base import validate
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import FORMER_CODES, Code
from msfl_server.rounds.failures import MEANINGS
from msfl_server.study.server_config import ServerConfig
from tests.docs.pages import DOCS, IN_REPOSITORY, PAGES, REPOSITORY, typed, unknown

SETTINGS = {"study.yaml": StudyConfig, "site.yaml": SiteConfig, "server.yaml": ServerConfig}


@pytest.mark.parametrize("code", Code, ids=str)
def test_every_code_has_an_entry(code: Code) -> None:
    text = (DOCS / "reference" / "troubleshooting.md").read_text()
    anchor = code.value.lower().replace("_", "-")
    assert f"### {code.value} {{ #{anchor} }}\n" in text


def test_every_code_that_is_documented_is_there_and_the_coordinators_are_documented() -> None:
    text = (DOCS / "reference" / "troubleshooting.md").read_text()
    at_site, rest = text.split("## By code, at the coordinator")
    assert set(re.findall(r"^### ([A-Z_]+) ", at_site, re.M)) == {code.value for code in Code}
    rows = [line.split("|")[1:-1] for line in rest.split("## By message")[0].splitlines() if line.startswith("| `")]
    documented = {code for row in rows for code in re.findall(r"`([A-Z_]+)`", row[0])}
    assert documented == set(MEANINGS) - {code.value for code in Code} - set(FORMER_CODES)
    assert all(row[2].strip() for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_examples_are_included(page: Path) -> None:
    """A formatter of Python takes `--8<--` for arithmetic, and its page then shows that in place of the example."""
    lines = re.findall(r"^.*--\s*8\s*<.*$", page.read_text(), re.M)
    assert [line for line in lines if not re.fullmatch(r'\s*--8<-- "[^"]+"', line)] == []


def test_each_kind_of_message_is_explained() -> None:
    page = (DOCS / "reference" / "messages.md").read_text()
    kinds = {*Policy().allow, "harmonization_sums"}
    assert [kind for kind in kinds if f"\n| `{kind}` |" not in page] == []


def test_each_message_is_said_somewhere() -> None:
    """What people look up by its text stands in the code, apart from what is filled in."""
    modules = (path for side in ("common", "client", "server") for path in (REPOSITORY / side).rglob("*.py"))
    code = " ".join(re.sub(r'"\s*f?"', "", path.read_text()).replace("`", "") for path in modules)
    table = (DOCS / "reference" / "troubleshooting.md").read_text().split("## By message")[1]
    messages = [re.findall(r"`([^`]+)`", row)[0] for row in re.findall(r"^\| (`.*?) \|", table, re.M)]
    parts = [part.strip(" :") for message in messages for part in message.split("...")]
    assert len(parts) > 15
    assert [part for part in parts if part not in code] == []


@pytest.mark.parametrize("page", [*IN_REPOSITORY, *PAGES], ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_commands_and_their_options_exist(page: Path) -> None:
    assert [fault for line in typed(page.read_text()) if (fault := unknown(line))] == []


def test_an_unknown_command_or_option_is_found() -> None:
    assert unknown("msfl-client fly site.yaml") == "msfl-client fly"
    assert unknown("msfl-client check site.yaml --wings") == "msfl-client check --wings"
    assert unknown("msfl-client check site.yaml --json") is None
    assert list(typed("```sh\nmsfl-client check x\n```\nand `msfl-server start`")) == [
        "msfl-client check x",
        "msfl-server start",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_settings_are_taken(page: Path) -> None:
    """Each `yaml` block that says which file it is of."""
    for name, text in re.findall(r"```yaml title=\"([\w.]+)\"\n(.*?)```", page.read_text(), re.S):
        required = {
            "study.yaml": {"name": "a-study"},
            "site.yaml": {"name": "a", "data": "data", "state": "state"},
            "server.yaml": {"hosts": ["localhost"]},
        }[name]
        validate(SETTINGS[name], required | yaml.safe_load(text), f"{page}: {name}")


@pytest.mark.parametrize("page", IN_REPOSITORY, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_of_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [link.partition("#")[0] for link in links if ":" not in link and not link.startswith("#")]
    assert [link for link in inside if not (page.parent / link).exists()] == []
