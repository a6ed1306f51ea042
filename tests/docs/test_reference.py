"""The documentation site: it builds, no link is dead, and what it says of commands, settings and errors is so."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import typer
import yaml

from msfl_client.cli.main import app as client_app
from msfl_common.config.base import validate
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_server.cli.main import app as server_app
from msfl_server.study.server_config import ServerConfig

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
IN_REPOSITORY = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")]
MADE = re.compile(r"reference/(study|site|server|msfl-client|msfl-server|metrics|features|python)\.md$")
PROGRAMS = {"msfl-client": client_app, "msfl-server": server_app}
SETTINGS = {"study.yaml": StudyConfig, "site.yaml": SiteConfig, "server.yaml": ServerConfig}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a dead link or anchor, or a page that is in no menu, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_takes_nothing_from_a_network(site: Path) -> None:
    loads = re.compile(r"""<(?:script|img|iframe)\b[^>]*\ssrc="?(https?:|//)|<link\b[^>]*href="?(https?:|//)""")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if loads.search(page.read_text())] == []


def test_the_search_works_from_a_folder(site: Path) -> None:
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="javascripts/iframe-worker.js"' in (site / "index.html").read_text()


def test_every_setting_and_command_has_its_place(site: Path) -> None:
    study = (site / "reference" / "study.html").read_text()
    assert [key for key in StudyConfig.model_fields if f"<code>{key}</code>" not in study] == []
    assert 'id="classification-model-logistic"' in study
    for program, app in PROGRAMS.items():
        page = (site / "reference" / f"{program}.html").read_text()
        assert [name for name in subcommands(app) if f'id="{name}"' not in page] == []


def test_pages_for_the_repository_are_pages_here(site: Path) -> None:
    assert 'id="residual-risks"' in (site / "deploy" / "hospital-it.html").read_text()
    assert (site / "deploy" / "index.html").is_file()


@pytest.mark.parametrize("code", Code, ids=str)
def test_every_code_has_an_entry(code: Code) -> None:
    text = (DOCS / "reference" / "troubleshooting.md").read_text()
    anchor = code.value.lower().replace("_", "-")
    assert f"### {code.value} {{ #{anchor} }}\n" in text


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
    assert [link for link in inside if not (page.parent / link).exists() and not MADE.search(link)] == []


def typed(markdown: str) -> Iterator[str]:
    """Commands of ours, in blocks and in running text."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", markdown, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(msfl-(?:client|server) [^`]*)`", re.sub(r"```.*?```", "", markdown, flags=re.S))
    for line in lines:
        for part in re.split(r"&&|\||;|\bdo\b", line):
            if found := re.search(r"(?<![\w/-])(msfl-(?:client|server) \S.*)", part):
                yield " ".join(found[1].split())


def unknown(line: str) -> str | None:
    """The first command or option of a line that does not exist."""
    words = shlex.split(line.split(" #")[0].replace("...", ""), comments=False)
    program, rest = words[0], words[1:]
    commands = subcommands(PROGRAMS[program])
    if not rest or not re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        return None
    if rest[0] not in commands:
        return f"{program} {rest[0]}"
    options = {name for parameter in commands[rest[0]].params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest[1:]:
        if word.startswith("--") and word.partition("=")[0] not in options | {"--help", "--debug"}:
            return f"{program} {rest[0]} {word}"
    return None


@cache
def subcommands(app: typer.Typer) -> dict[str, click.Command]:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = click.Context(group)
    return {name: command for name in group.list_commands(context) if (command := group.get_command(context, name))}
