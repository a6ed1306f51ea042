"""A stranger's files: model folders, settings and references that would mislead, exhaust or obey nobody."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.table import Table
from rich.text import Text

from msfl_client.harmonization.combat import Rows, fit_scanners
from msfl_common.config.site import load_site
from msfl_common.config.study import load_study, parse_study
from msfl_common.errors import ConfigError, ModelFolderError, RefusedError
from msfl_common.harmonization import Reference
from msfl_common.models.model_folder import read_reference
from msfl_common.system.foreign_text import harmless, shown
from msfl_common.system.progress import PlainConsole
from msfl_server.cli.main import app as server_app
from msfl_server.study.folder import init_study
from msfl_server.study.server_config import ServerConfig
from tests.attacks.file_mutations import (
    HOSTILE_TEXT,
    make_models,
    megabytes,
    mutated_files,
    read_model,
    reading_fault,
    reference_of,
)
from tests.attacks.request_mutations import NAMES, studies

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + number)}: &{chr(98 + number)} [{', '.join(['*' + chr(97 + number)] * 9)}]\n" for number in range(8)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB.encode(), "anchors and aliases"),
        (b"a: &a {x: 1}\nb: {<<: *a}\n", "anchors and aliases"),
        (b"name: !!python/object/apply:os.system [id]\n", "tags"),
        (b"name: !!binary AAAA\n", "tags"),
        (b"name: a\npolicy: {min_patients: 50, min_patients: 1}\n", "min_patients is there twice"),
        (b"name: a\nname: b\n", "name is there twice"),
        (b"name: " + b"[" * 100_000, "lists and mappings in each other"),
        (b"a: {" * 100 + b"}" * 100, "lists and mappings in each other"),
        (b"seed: " + b"9" * 10_000, "digits"),
        (b"seed: 2024-13-45\n", "not valid YAML"),
        (b"name: \xff\xfe\n", "not UTF-8"),
        (b"name: a\0b\n", "not valid YAML"),
        (b'data: "a\\0b"\n', "control character"),
        (b'name: "\\x1b[2J"\n', "control character"),
        (b'name: "\\u202egnp"\n', "control character"),
        (b"x" * 1_000_000, "bytes, found more"),
        (b"? {a: 1}\n: 2\n", "plain key"),
        (b"- a\n", "key: value"),
        (b"", "key: value"),
        (b"x: 0x_\n", "not valid YAML"),
    ],
)
def test_settings_of_a_stranger_are_refused_in_short_lines(tmp_path: Path, text: bytes, told: str) -> None:
    path, before = tmp_path / "site.yaml", megabytes()
    path.write_bytes(text)
    for read in (load_site, load_study):
        with pytest.raises(ConfigError, match=told) as caught:
            read(path)
        assert caught.value.exit_code == 2
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()
    assert megabytes() - before < 100


def test_a_pipe_in_place_of_settings_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.yaml")
    with pytest.raises(ConfigError, match="plain file"):
        load_site(tmp_path / "site.yaml")


def reference(**changes: Any) -> dict[str, Any]:
    return reference_of(studies()[1]).model_dump(mode="json") | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"pooled_variance": [0.0] * 4},
        {"pooled_variance": [1e-300] * 4},
        {"pooled_variance": [1e300] * 4},
        {"grand_mean": [1e308] * 4},
        {"slopes": [[-1e308] * 4] * 2},
        {"slopes": [[1.0] * 3] * 2},
        {"columns": ["sex", "age"]},
        {"columns": [HOSTILE_TEXT, "sex"]},
        {"num_cases": 10**30},
        {"study": HOSTILE_TEXT},
        {"pooled_variance": []},
        {"settings": {"method": "combat", "age_knots_years": list(range(100))}},
        {"settings": {"method": "combat", "covariates": ["age"] * 1000}},
    ],
)
def test_a_hostile_reference_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "harmonization.json"
    path.write_text(json.dumps(reference(**changes)))
    with pytest.raises(ModelFolderError, match="not a reference of this version") as caught:
        read_reference(path)
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("size", [1e12, 1e6, 1e-12])
def test_a_reference_far_from_all_cases_gives_finite_figures_or_a_refusal(size: float) -> None:
    rng = np.random.default_rng(0)
    rows = Rows(NAMES, rng.normal(size=(12, 4)), rng.normal(size=(12, 2)).astype(np.float32), ("a",) * 6 + ("b",) * 6)
    far = Reference.model_validate(
        reference(slopes=[[size] * 4] * 2, grand_mean=[-size] * 4, pooled_variance=[size**2] * 4)
    )
    try:
        fit = fit_scanners(rows, far)
    except RefusedError:
        return
    assert np.isfinite([scanner.gamma_star + scanner.delta_star for scanner in fit.scanners]).all()


def shown_by(console_of: Callable[[io.StringIO], None]) -> str:
    stream = io.StringIO()
    console_of(stream)
    return stream.getvalue()


def test_no_text_is_markup_or_moves_the_cursor() -> None:
    def fill(stream: io.StringIO) -> None:
        console = PlainConsole()
        console.file, console.width = stream, 300
        console.print(HOSTILE_TEXT)
        table = Table(HOSTILE_TEXT, title=HOSTILE_TEXT, caption=HOSTILE_TEXT)
        table.add_row(HOSTILE_TEXT)
        table.add_row(Text(HOSTILE_TEXT))
        console.print(table)
        console.print(Text.assemble((HOSTILE_TEXT, "yellow")))

    told = shown_by(fill)
    assert told.replace("\n", "").isprintable()
    assert told.count("[/nothing]") == 7


def test_status_shows_what_a_hostile_site_called_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Markup in a name once ended `status`, and an escape sequence could have renamed the window."""
    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    failed = [{"site": "a", "code": "BAD_UPDATE"}]
    now = "2026-01-01T00:00:00Z"
    status = {"state": "running", "pid": 1, "study": HOSTILE_TEXT, "written": now, "num_rounds": 3, "failed": failed}
    study.status.parent.mkdir(parents=True, exist_ok=True)
    study.status.write_text(json.dumps(status))
    (study.sites / "a.pub").write_text("")
    typer.main.get_command(server_app).main(["status", str(study.root)], standalone_mode=False)
    told = capsys.readouterr().out
    assert told.replace("\n", "").isprintable()
    assert "nothing" in told


def test_text_is_made_safe_and_short() -> None:
    assert shown(HOSTILE_TEXT + "\n", 10_000).isprintable()
    assert harmless("a\nb\tc \u00e9\u4e2d") == "a\nb\tc \u00e9\u4e2d"
    assert shown("x" * 10_000) == "x" * 200 + "..."
    assert "\x1b" not in harmless("\x1b")


def test_nothing_is_printed_but_by_the_plain_console() -> None:
    """The sweep over both sides: whoever prints, prints through it."""
    root = Path(__file__).parents[2]
    files = [path for side in ("common", "client", "server") for path in (root / side).rglob("*.py")]
    strange = re.compile(
        r"(?<!Plain)\bConsole\(|\bprint\((?<!console\.print\()(?<!errors\.print\()(?<!console\(\)\.print\()|from_markup|markup=True|Markup\(f[\"']"
    )
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in files
        if path.name != "progress.py"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if strange.search(line.replace("(soft_wrap=True).print(", "().print("))
        and not line.lstrip().startswith(("def ", "#", '"'))
    ]
    assert found == []


def test_mutated_folders_and_settings_end_in_one_error(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    assert [reading_fault(read_model, model) for model in models] == [None] * len(models)
    faults = [reading_fault(read, path) for _, read, path in mutated_files(models, tmp_path, 200, seed=11)]
    assert len(faults) == 300
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize(
    "content",
    [
        {"rounds": {"server_momentum": [1]}},
        {"rounds": {"server_momentum": {"a": 1}}},
        {"rounds": {"server_momentum": 0.5}, "strategy": {"kind": "fedavg"}},
        {"min_cases": 1, "min_patients": 9},
        {"min_patients": 9, "min_cases": 1},
        {"training": {"augmentation": {"contrast": 0.0, "gamma": 1.0}}},
        {"model": {}, "network": {"kind": "unet"}},
    ],
)
def test_a_stored_study_with_an_earlier_key_is_read_or_refused_by_name(content: dict[str, Any]) -> None:
    """Beside the key that it is called now, neither wins."""
    with pytest.raises(ConfigError, match=r"momentum|min_cases|contrast|model"):
        parse_study(json.dumps({"name": "a"} | content))
