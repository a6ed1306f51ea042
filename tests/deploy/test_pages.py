"""The pages of deploy/: nothing they point at is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from msfl_common.config.message_kinds import KINDS, REQUESTS
from tests.deploy.services import DEPLOY

PAGES = sorted(DEPLOY.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (DEPLOY / link).exists()] == []


def test_the_overview_names_every_folder() -> None:
    text = (DEPLOY / "README.md").read_text()
    folders = [path.name for path in DEPLOY.iterdir() if path.is_dir()]
    assert folders
    assert [name for name in folders if f"({name})" not in text] == []


def test_the_files_that_the_pages_name_exist() -> None:
    """`deploy/...` as typed in commands."""
    named = {name for page in PAGES for name in re.findall(r"(?<!tests/)\bdeploy/[\w./-]*\w", page.read_text())}
    assert {"deploy/docker/Dockerfile", "deploy/docker/install.sh"} <= named
    assert [name for name in named if not list(DEPLOY.parent.glob(f"{name}*"))] == []


def test_the_tests_that_the_pages_name_exist() -> None:
    """The pages for hospitals and officers name, for what they say, the test that shows it."""
    pages = (*PAGES, *(DEPLOY.parent / "docs" / "explanation").glob("*.md"))
    named = {name for page in pages for name in re.findall(r"`(tests/[^`]*)`", page.read_text())}
    assert {"tests/attacks/test_kit.py", "tests/integration/test_egress.py"} <= named
    assert [name for name in sorted(named) if not (DEPLOY.parent / name).exists()] == []


def test_each_threat_names_a_test_or_what_is_left() -> None:
    """Rows of the tables that say what stops an attack."""
    model = (DEPLOY / "hospital-it.md").read_text().split("## Threat model")[1].split("## Residual risks")[0]
    rows = [line for line in model.splitlines() if line.startswith("| ") and not line.startswith("| attack")]
    assert len(rows) >= 20
    assert [row for row in rows if "`tests/" not in row and "(#residual-risks)" not in row] == []


def test_each_line_for_the_officer_names_a_test() -> None:
    """All but the one of what no program prevents."""
    text = (DEPLOY.parent / "docs" / "explanation" / "who-learns-what.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.rstrip(" |").endswith("shown by")]
    assert len(rows) >= 25
    assert [row.split("|")[1][:20] for row in rows if "`tests/" not in row] == [" **your data folder,"]


def test_the_page_for_hospitals_has_the_tables_of_what_leaves() -> None:
    """As `config.message_kinds` says it; the message shows what to put there."""
    kinds = ["| in `policy.allow` | what it holds | allowed where the policy lists nothing |", "|---|---|---|"]
    for name, kind in KINDS.items():
        kinds.append(f"| `{name}` | {kind.title}: {kind.holds} | {'yes' if kind.by_default else '**no**'} |")
    requests = ["| request | for | answered with | how often |", "|---|---|---|---|"]
    for name, request in REQUESTS.items():
        often = "once a study" if request.is_once else "once a round" if request.counted_as else "whenever asked"
        requests.append(f"| `{name}` | {request.words} | `{request.answer}` | {often} |")
    text = (DEPLOY / "hospital-it.md").read_text()
    for table in (kinds, requests):
        assert "\n".join(["", *table, ""]) in text, "expected in deploy/hospital-it.md:\n" + "\n".join(table)
