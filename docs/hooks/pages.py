"""What `mkdocs` calls: pages made of the code, pages of the repository, and links between them.

Reference pages are made at every build of the models, commands and tables themselves, so that they cannot say other
than the code. `deploy/README.md`, `deploy/hospital-it.md` and `CHANGELOG.md` stay where people of the repository look
for them, and are pages here too.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from command_reference import command_page
from public_interface import interface_page
from settings_reference import settings_page
from table_reference import codes_table, features_page, metrics_page

ROOT = Path(__file__).parents[2]
REPOSITORY_PAGES = ("deploy/README.md", "deploy/hospital-it.md", "CHANGELOG.md")
EXTENDING = "how-to/add-a-*.md"
CODES_HERE = "<!-- error codes -->"

_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s]+)\)")


def made_pages() -> dict[str, str]:
    """Pages that are made of the code: Markdown by path in the site."""
    from msfl_client.cli.main import app as client
    from msfl_common.config.site import SiteConfig
    from msfl_common.config.study import StudyConfig
    from msfl_server.cli.main import app as server
    from msfl_server.study.server_config import ServerConfig

    pages = {
        "reference/study.md": settings_page("study.yaml", StudyConfig, STUDY_INTRODUCTION),
        "reference/site.md": settings_page("site.yaml", SiteConfig, SITE_INTRODUCTION),
        "reference/server.md": settings_page("server.yaml", ServerConfig, SERVER_INTRODUCTION),
        "reference/msfl-client.md": command_page("msfl-client", client),
        "reference/msfl-server.md": command_page("msfl-server", server),
        "reference/metrics.md": metrics_page(),
        "reference/features.md": features_page(),
    }
    if (interface := interface_page()) is not None:
        pages["reference/python.md"] = interface
    return pages


def on_config(config: MkDocsConfig) -> None:
    """Fill the navigation with the pages of `how-to/add-a-*.md`, and with that of the Python interface."""
    folder = Path(config.docs_dir)
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.glob(EXTENDING))
    for section in config.nav or ():
        for name, items in section.items():
            if name == "How to":
                extending = next(item for item in items if "Extend" in item)
                extending["Extend"] = pages
                if not pages:
                    items.remove(extending)
            if name == "Reference" and interface_page() is not None:
                items.insert(-1, {"Python": "reference/python.md"})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that do not lie under docs/."""
    for path, markdown in made_pages().items():
        files.append(File.generated(config, path, content=markdown))
    for path in REPOSITORY_PAGES:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links as the site needs them, and the table of codes where a page asks for it."""
    path = page.file.src_uri
    source = path if path in REPOSITORY_PAGES else f"docs/{path}"
    return site_links(markdown, source, path).replace(CODES_HERE, codes_table())


def site_links(markdown: str, source: str, path: str) -> str:
    """Links of a page that are right in the repository, as they are right in the site.

    Args:
        markdown: the page.
        source: its path in the repository.
        path: its path in the site.

    Returns:
        The page; what it links to in the repository and is no part of the site is named, not linked.
    """

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        place, hash_, anchor = target.partition("#")
        if not place or ":" in place:
            return match[0]
        named = posixpath.normpath(posixpath.join(posixpath.dirname(source), place))
        if named in REPOSITORY_PAGES:
            return f"[{text}]({posixpath.relpath(named, posixpath.dirname(path) or '.')}{hash_}{anchor})"
        if named.startswith("docs/"):
            there = posixpath.relpath(named.removeprefix("docs/"), posixpath.dirname(path) or ".")
            return f"[{text}]({there}{hash_}{anchor})"
        return f"`{named}`" if (ROOT / named).exists() else match[0]

    return _LINK.sub(link, markdown)


STUDY_INTRODUCTION = """
The study, written by its coordinator. Every site validates it again and holds it against its own policy, which wins.
What is left out has its default; a key that is not listed here is refused by name. `msfl-server init` writes a file
with every key.
"""
SITE_INTRODUCTION = """
A hospital's own file; it never leaves the hospital. `msfl-client init` writes one with every key. What is left out has
its default; a key that is not listed here is refused by name.
"""
SERVER_INTRODUCTION = """
Where the coordinator's server listens, and under which names sites reach it. `msfl-server init` writes it into the
study folder. After a change of hosts or ports: `msfl-server renew-certificate`, which makes the kits anew.
"""
