"""MLflow on PostgreSQL, started by the command of deploy/ with the settings of the compose file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.services import DEPLOY, account_entry, folder_of, free_port, program, running, unprivileged

ACCOUNT = "postgres"
SERVER_FOLDERS = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
LOGIN = "coordinator:an:other"
PASSWORD = "a:b\\c'd"  # with what a password file has to escape


@dataclass(frozen=True)
class Database:
    """A PostgreSQL of our own, reached by TCP with a password."""

    folder: Path
    port: int

    def log_in(self) -> None:
        """Fails where the database asks for no password, or refuses the right one."""
        command = [psql(), "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "-c", "select 1", "mlflow"]
        for password, expected in ((PASSWORD, 0), ("wrong", 2)):
            environment = {"PATH": os.environ["PATH"], "PGPASSWORD": password, "HOME": str(self.folder)}
            assert subprocess.run(command, env=environment, capture_output=True).returncode == expected


def psql() -> str:
    return program("psql", "postgresql-client", *SERVER_FOLDERS)


def compose_service(name: str) -> dict[str, str]:
    """Environment of a service of the compose file."""
    services = yaml.safe_load((DEPLOY / "compose" / "server.yaml").read_text())["services"]
    environment: dict[str, str] = services[name]["environment"]
    return environment


@contextmanager
def postgres(folder: Path, port: int) -> Iterator[Database]:
    """PostgreSQL as the official image sets it up for the compose file's settings."""
    initdb, server = (program(name, "postgresql", *SERVER_FOLDERS) for name in ("initdb", "postgres"))
    settings, account = compose_service("postgres"), unprivileged(ACCOUNT)
    data, password = folder / "pgdata", folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o444)
    log = folder / "postgres.log"
    if not data.exists():
        command = [initdb, "-D", data, "-U", settings["POSTGRES_USER"], "--pwfile", password, "--no-sync"]
        done = subprocess.run(
            [*command, *settings["POSTGRES_INITDB_ARGS"].split()], capture_output=True, text=True, **account
        )
        assert done.returncode == 0, done.stderr
    command = [server, "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    database = Database(folder, port)
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD}
    query = [psql(), "-h", "127.0.0.1", "-p", str(port), "-U", settings["POSTGRES_USER"], "postgres", "-tc"]

    def ready() -> bool:
        return not subprocess.run([*query, "select 1"], env=environment, capture_output=True).returncode

    # As the official image does; on SIGTERM PostgreSQL would wait until every client has left.
    with running(command, ready, log, stop_signal=signal.SIGINT, **account):
        name = settings["POSTGRES_DB"]
        if name.encode() not in subprocess.check_output([*query, "select datname from pg_database"], env=environment):
            subprocess.check_output([*query, f"create database {name}"], env=environment)
        yield database


@contextmanager
def mlflow(database: Database) -> Iterator[str]:
    """MLflow as the compose file starts it, with this machine's addresses; yields its URI."""
    port = free_port()
    home = database.folder / "home"
    home.mkdir(exist_ok=True)
    login = database.folder / "login"
    login.write_text(LOGIN)
    login.chmod(0o600)
    if os.geteuid() == 0:
        account = account_entry(ACCOUNT)
        os.chown(login, account.pw_uid, account.pw_gid)
    environment = {
        **compose_service("mlflow"),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database.port),
        "MSFL_PASSWORD_FILE": str(database.folder / "password"),
        "MSFL_LOGIN_FILE": str(database.folder / "login"),
        "MSFL_ARTIFACTS": str(database.folder / "artifacts"),
        "MSFL_MLFLOW_LISTEN": f"127.0.0.1:{port}",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    uri = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{uri}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    script, log = DEPLOY / "docker" / "mlflow.sh", database.folder / "mlflow.log"
    with running(["sh", script], ready, log, timeout_s=120, env=environment, cwd=home):
        yield uri


def commands_of(account_folder: Path) -> str:
    """Command lines and environments of every process that names the folder."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if bytes(account_folder) in text and process.name != str(os.getpid()):
            texts.append(text)
    return b"\n".join(texts).decode(errors="replace")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_study_in_mlflow_survives_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msfl_server.tracking.mlflow_tracker import MlflowClient

    (tmp_path / "back").mkdir()
    user, _, password = LOGIN.partition(":")
    (tmp_path / "report.html").write_text("the report")
    port = free_port()
    with folder_of(ACCOUNT) as folder, ExitStack() as first_life:
        database = first_life.enter_context(postgres(folder, port))
        database.log_in()
        with mlflow(database) as uri:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            client = MlflowClient(uri)
            run = client.create_run(client.create_experiment("study"))
            client.log_metric(run.info.run_id, "dice", 0.75, step=3)
            client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))

            shown = commands_of(folder)
            assert "postgresql+psycopg2://mlflow@127.0.0.1" in shown
            assert PASSWORD not in shown
            assert password not in shown
            assert (folder / "home" / "pgpass").stat().st_mode & 0o777 == 0o600
            search = f"{uri}/api/2.0/mlflow/registered-models/search"
            assert httpx.get(search).status_code == 401
            assert httpx.get(search, auth=(user, password), headers={"Host": "evil.org"}).status_code == 403
            assert httpx.get(search, auth=(user, password)).status_code == 200

            # PostgreSQL goes and comes back under MLflow's feet.
            first_life.close()
            with postgres(folder, port):
                [metric] = client.get_metric_history(run.info.run_id, "dice")
                assert (metric.value, metric.step) == (0.75, 3)
                artifact = client.download_artifacts(run.info.run_id, "report.html", str(tmp_path / "back"))
                assert Path(artifact).read_text() == "the report"
