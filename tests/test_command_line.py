"""Every command of both programs, by the same conventions; what an option is called means the same in all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import typer

from msfl_client.cli.main import app as client_app
from msfl_client.cli.main import main as client
from msfl_common import __version__
from msfl_common.system.command_line import OLD_NAMES
from msfl_server.cli.main import app as server_app
from msfl_server.cli.main import main as server
from tests.commands import run_main
from tests.test_wrong_paths import CLIENT, SERVER

PROGRAMS = {"msfl-client": client_app, "msfl-server": server_app}
MAINS: dict[str, Callable[[], None]] = {"msfl-client": client, "msfl-server": server}
LINES = {"msfl-client": CLIENT, "msfl-server": SERVER}
STANDARD = {"--help", "-h", "--quiet", "-q", "--verbose", "-v", "--debug", "--json"}

# What each option means, in both programs.
MEANINGS = {
    "--confirm": "the words of a roster that a person confirms",
    "--active": "how many patients change in a year",
    "--attack": "what attacked sites do",
    "--attacked": "which sites are attacked",
    "--authority": "whose models are taken, by certificate or fingerprint",
    "--attribution": "how relevance is found",
    "--backend": "where virtual sites run",
    "--ca-key": "the authority's key",
    "--classifiers": "which classifiers are tried",
    "--cohort": "BIDS folders, one a site",
    "--connection": "whether server and machine are looked at",
    "--control-port": "the port for this machine alone",
    "--controls": "number of healthy controls",
    "--data": "the site's own BIDS folder",
    "--debug": "a traceback",
    "--device": "what is computed on",
    "--drop": "a column left out",
    "--dry-run": "what a run would be, without it",
    "--every-visit": "all visits of a patient",
    "--freeze": "a layer that is not trained",
    "--image": "an image of a contrast, outside of any BIDS folder",
    "--models": "how many models an audit trains and attacks",
    "--rounds": "number of rounds",
    "--subgroup": "a column of groups that are compared",
    "--subject": "patients to look at alone",
    "--threshold": "the probability from which on something is lesion, or of a class",
    "--visit": "visits to look at alone",
    "--visits": "number of visits of a patient",
    "--force": "take what cannot be right",
    "--export": "all of the ledger as a table",
    "--fingerprint": "approval of an authority by its fingerprint",
    "--folds": "number of parts that are held out",
    "--group-by": "groups within which cases are scaled",
    "--health-port": "the port for health checks",
    "--help": "help",
    "--host": "a name of the server",
    "--input": "the BIDS folder that is read",
    "--json": "one JSON document",
    "--key": "the officer's key",
    "--last": "number of newest entries",
    "--leave-one-site-out": "folds by site",
    "--method": "how raters' masks are merged",
    "--memory-gb": "memory of the smallest GPU, GB",
    "--model": "a model folder",
    "--name": "the site's name",
    "--new-key": "giving up the server's key",
    "--nmosd": "number of patients with NMOSD",
    "--num-features": "number of features of a simulated table",
    "--num-selected": "number of features that a selection keeps",
    "--num-tested": "number of pipelines tested",
    "--offline-ca": "where the authority's key is written",
    "--open": "a line of the ledger",
    "--output": "what is written",
    "--passphrase": "asking for a passphrase",
    "--passphrase-file": "the file with a passphrase",
    "--patients": "number of patients with MS",
    "--permutations": "number of permutations",
    "--pipeline": "the pipelines that classifiers are tried with",
    "--port": "the port for sites",
    "--public-key": "a site's public key",
    "--public-port": "the port of a proxy",
    "--quiet": "no notes",
    "--rater": "a rater's masks",
    "--reference": "a harmonization reference",
    "--report": "a page for people",
    "--resume": "the run that is resumed",
    "--rules": "what series of certain names are",
    "--search": "a search of hyperparameters",
    "--search-pipeline": "the pipeline that hyperparameters are searched with",
    "--seed": "the seed",
    "--seeds": "number of repetitions",
    "--set": "a setting in the place of the file's",
    "--site": "a site's file",
    "--sites": "number of sites",
    "--spacing": "voxel size",
    "--strategies": "federated arms",
    "--start-from": "what a network starts from",
    "--subset": "columns that are tried alone",
    "--survey": "what a survey told",
    "--study": "the study's file",
    "--table": "a table of features",
    "--task": "classes that are told apart",
    "--test-all": "testing every pipeline",
    "--test-tuned": "testing tuned classifiers",
    "--template": "the example that a study begins with",
    "--tracking-uri": "the MLflow server",
    "--verbose": "log lines",
    "--verify": "checking the ledger alone",
    "--watch": "showing it again",
    "--with-fa": "maps of fractional anisotropy, too",
    "--with-octants": "label images of octants, too",
    "--with-black-holes": "lesion masks with black holes, too",
    "--without-images": "a cohort of tables",
    "--workers": "number of parallel jobs",
    "--yes": "not being asked",
}
PLACES = {
    "BIDS", "COHORT_DIR", "DICOM", "KEY_FILE", "KIT.zip", "MODEL_DIR", "NAME", "RESNET18.pth", "RUN_DIR", "SITE.yaml",
    "SITE_DIR", "SITE_NAME", "STUDY", "STUDY.yaml", "STUDY.yaml|RUN_DIR", "STUDY_DIR", "STUDY_NAME", "TABLE.tsv",
}  # fmt: skip


# What a command looks at only where it needs it: an encrypted key, a kit that is not up to date.
NOT_READ = {
    ("add-site", "--passphrase-file"),
    ("make-cohort", "--output"),  # in its place, the argument is tried
    ("renew-certificate", "--passphrase-file"),
    ("renew-kits", "--ca-key"),
    ("renew-kits", "--passphrase-file"),
}


@cache
def group_of(program: str) -> click.Group:
    group = typer.main.get_command(PROGRAMS[program])
    assert isinstance(group, click.Group)
    return group


def commands() -> Iterator[tuple[str, str]]:
    for program in PROGRAMS:
        for name in group_of(program).commands:
            yield program, name


def command_of(program: str, name: str) -> tuple[click.Command, click.Context]:
    group = group_of(program)
    parent = click.Context(group, info_name=program, **group.context_settings)
    command = group.commands[name]
    return command, click.Context(command, parent, name)


def options_of(program: str, name: str) -> list[click.Parameter]:
    command, context = command_of(program, name)
    return [param for param in command.get_params(context) if isinstance(param, click.Option)]


@pytest.mark.parametrize(("program", "name"), list(commands()))
def test_every_command_keeps_the_conventions(program: str, name: str) -> None:
    command, context = command_of(program, name)
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    names = {option for param in params if isinstance(param, click.Option) for option in param.opts}
    assert names >= STANDARD
    assert not names & set(OLD_NAMES)
    assert ("--output" in names) == ("-o" in names)
    assert command.help is not None
    assert command.help.strip().splitlines()[0].endswith(".")
    for param in params:
        told = getattr(param, "help", None)
        assert told, f"{param.name} has no help"
        assert told.endswith("."), f"{param.name}: {told}"
        shown = param.make_metavar().strip("[]").removesuffix("...")
        if isinstance(param, click.Argument):
            assert shown in PLACES
        elif not getattr(param, "is_flag", False) and "help" not in param.opts[0]:
            assert re.fullmatch(r"[A-Z][A-Z0-9_]*(\|[A-Z0-9_]+)?(\.[a-z]+)?", shown), f"{param.opts}: {shown}"
            assert shown not in ("TEXT", "PATH", "INTEGER", "FLOAT", "FILENAME"), f"{param.opts}: no type is named"


def test_an_option_is_called_the_same_wherever_it_means_the_same() -> None:
    kinds: dict[str, set[tuple[str, str, bool]]] = {}
    for program, name in commands():
        for option in options_of(program, name):
            kind = (type(option.type).__name__, re.sub(r"[A-Z]*\.[a-z]+|KEY_FILE|FILE", "FILE", option.make_metavar()))
            kinds.setdefault(max(option.opts, key=len), set()).add((*kind, option.multiple))
    assert set(kinds) == set(MEANINGS)
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    # What is written differs; one or several.
    several = {"--model", "--name", "--output", "--search", "--site", "--table", "--workers"}
    assert {name for name, found in kinds.items() if len(found) > 1} <= several


@pytest.mark.parametrize(("program", "name"), list(commands()))
def test_every_path_of_every_command_is_tried_with_a_wrong_one(program: str, name: str) -> None:
    command, context = command_of(program, name)
    lines = [line.split() for line in LINES[program] if line.split()[0] == name]
    assert lines, "no line in tests/test_wrong_paths.py"
    for param in command.get_params(context):
        if isinstance(param, click.Option) and isinstance(param.type, click.Path):
            before = [old for old, new in OLD_NAMES.items() if new in param.opts]
            known = {*param.opts, *before}
            tried = any(known & set(line) for line in lines)
            assert tried != ((name, param.opts[0]) in NOT_READ), f"{param.opts[0]} is tried nowhere"


@pytest.mark.parametrize(("program", "name"), list(commands()))
@pytest.mark.parametrize("arguments", [["--nonsense"], ["--quiet", "--verbose", "a", "b"]])
def test_a_wrong_command_line_is_one_line(program: str, name: str, arguments: list[str]) -> None:
    done = run_main(MAINS[program], name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version_in_short_and_in_long(program: str) -> None:
    assert run_main(MAINS[program], "-V").stdout == f"msfl {__version__}\n"
    assert run_main(MAINS[program], "--version").stdout == f"msfl {__version__}\n"
    assert run_main(MAINS[program], "-h").stdout == run_main(MAINS[program], "--help").stdout
    assert "--install-completion" in run_main(MAINS[program], "-h").stdout
    assert "--site" not in run_main(MAINS[program], "status", "-h").stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_but_what_draws_it(program: str) -> None:
    """A third of a second of processor time; what computes would take seconds more."""
    script, environment = Path(sys.executable).with_name(program), os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([script, "--help"], capture_output=True, text=True, env=environment, check=True)
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert {"typer", "msfl_common"} <= {name.partition(".")[0] for name in loaded}
    ours = [name for name in loaded if name.startswith("msfl_")]
    assert len(ours) < 50, ours
    computing = {"numpy", "torch", "flwr", "mlflow", "sklearn", "scipy", "nibabel", "pydantic", "yaml", "cryptography"}
    assert not computing & {name.partition(".")[0] for name in loaded}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_shell_completes_commands_and_options(program: str) -> None:
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"

    def complete(line: str, word: int) -> list[str]:
        words = {"COMP_WORDS": f"{program} {line}", "COMP_CWORD": str(word), variable: "complete_bash"}
        script = Path(sys.executable).with_name(program)
        done = subprocess.run([script], env=os.environ | words, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert {"status", "start", "stop"} <= set(complete("st", 1))
    assert complete("status --js", 2) == ["--json"]
    assert complete("stop --ou", 2) == []
