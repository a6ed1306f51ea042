"""The compose files, filled in from their example settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.services import DEPLOY

COMPOSE = DEPLOY / "compose"
FILES = {
    "server": ("server.yaml", "server.s3.yaml"),
    "site": ("site.yaml", "site.gpu.yaml"),
}
BASES = [files[0] for files in FILES.values()]
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def settings(side: str) -> dict[str, str]:
    """The example's variables."""
    lines = (COMPOSE / f"{side}.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(file: str) -> str:
    """A compose file with the example's values in it, as `docker compose --env-file` does it."""
    values = settings(file.split(".")[0])

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if kind == "-":
            return values.get(name) or rest
        assert values.get(name) or kind is None, f"{file}: {name} is needed and the example does not give it"
        return values[name]

    return VARIABLE.sub(value, (COMPOSE / file).read_text())


def merged(base: Any, more: Any) -> Any:
    """What `-f base -f more` makes of mappings; lists of `more` are added."""
    if isinstance(base, dict) and isinstance(more, dict):
        return {key: merged(base.get(key), more.get(key)) for key in base | more}
    if isinstance(base, list) and isinstance(more, list):
        return base + [item for item in more if item not in base]
    return base if more is None else more


def services(file: str) -> dict[str, dict[str, Any]]:
    """Services of a compose file, `<<` resolved."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(filled_in(file))["services"]
    return found


def every_service() -> list[tuple[str, str]]:
    return [(file, name) for file in BASES for name in services(file)]


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
@pytest.mark.parametrize("with_extra", [False, True])
def test_compose_files_follow_the_specification(files: tuple[str, str], with_extra: bool) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    document = yaml.safe_load(filled_in(files[0]))
    if with_extra:
        document = merged(document, yaml.safe_load(filled_in(files[1])))
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(document)).validate()


@pytest.mark.parametrize("side", FILES)
def test_the_example_explains_every_variable_and_no_other(side: str) -> None:
    used = {match[1] for file in FILES[side] for match in VARIABLE.finditer((COMPOSE / file).read_text())}
    assert used == set(settings(side))


@pytest.mark.parametrize("file", BASES)
def test_mounted_files_of_the_repository_exist(file: str) -> None:
    mounts = [mount.split(":")[0] for service in services(file).values() for mount in service.get("volumes", [])]
    ours = [mount for mount in mounts if mount.startswith(".")]
    assert all((COMPOSE / mount).exists() for mount in ours), ours
    assert len(ours) == 1


@pytest.mark.parametrize(("file", "name"), every_service())
def test_no_service_has_rights_that_it_does_not_need(file: str, name: str) -> None:
    service = services(file)[name]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "always"
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    assert {"mem_limit", "pids_limit", "ulimits"} <= set(service)
    assert service["ulimits"]["core"] == 0
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize(("file", "name"), every_service())
def test_images_are_pinned(file: str, name: str) -> None:
    """Those of others by digest, which the example leaves to be looked up; our own are built on the spot."""
    own = re.fullmatch(r"msfl-[a-z]+:\d+(\.\d+)*(-[a-z]+)?", services(file)[name]["image"])
    assert own or re.fullmatch(r"[a-z]+@sha256:DIGEST", services(file)[name]["image"])


def test_sites_reach_nginx_and_nothing_else() -> None:
    every = services("server.yaml")
    reachable = {name for name, s in every.items() for port in s.get("ports", []) if not port.startswith("127.0.0.1:")}
    assert reachable == {"nginx"}
    networks = {name: set(service["networks"]) for name, service in every.items()}
    assert networks["nginx"] & networks["server"] == {"fleet"}
    assert not networks["nginx"] & (networks["mlflow"] | networks["postgres"])
    assert networks["postgres"] == {"database"}
    inner = yaml.safe_load(filled_in("server.yaml"))["networks"]
    assert inner["fleet"]["internal"] is True
    assert inner["database"]["internal"] is True
    assert not any("ca.key" in mount or mount.endswith("/pki") for mount in every["nginx"]["volumes"])


def test_a_site_reaches_one_address_alone() -> None:
    """Its own network is inner; what stands between hands bytes on to the address of the settings."""
    document, values = yaml.safe_load(filled_in("site.yaml")), settings("site")
    assert document["networks"] == {"inside": {"internal": True}, "outside": {}}
    assert document["services"]["site"]["networks"] == ["inside"]
    egress = document["services"]["egress"]
    assert egress["networks"]["inside"] == {"aliases": [values["MSFL_EGRESS_NAME"]]}
    template = (DEPLOY / "nginx" / "egress.conf.template").read_text()
    assert re.findall(r"proxy_pass (.*);", template) == ["${MSFL_EGRESS_ADDRESS}:${MSFL_EGRESS_PORT}"]
    assert set(re.findall(r"\$\{(MSFL_\w+)\}", template)) == {n for n in egress["environment"] if n.startswith("MSFL_")}
    assert "resolver" not in template


def test_no_container_of_the_coordinator_has_a_way_out() -> None:
    """S3 is one, for MLflow, where it is asked for."""
    networks = yaml.safe_load(filled_in("server.yaml"))["networks"]
    masked = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    closed = {name for name, one in networks.items() if one.get("internal") or one.get("driver_opts") == masked}
    assert closed == set(networks)
    added = yaml.safe_load(filled_in("server.s3.yaml"))
    assert set(added["networks"]) == {"objects"}
    assert [name for name, service in added["services"].items() if "objects" in service["networks"]] == ["mlflow"]


def test_nginx_is_given_every_variable_of_its_template() -> None:
    template = (DEPLOY / "nginx" / "nginx.conf.template").read_text()
    given = set(services("server.yaml")["nginx"]["environment"])
    assert set(re.findall(r"\$\{(MSFL_\w+)\}", template)) == {name for name in given if name.startswith("MSFL_")}


def test_no_secret_stands_in_a_compose_file() -> None:
    for name, service in services("server.yaml").items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY", variable):
                assert value.startswith("/run/secrets/"), (name, variable)


def test_a_site_opens_no_port_and_cannot_change_its_data() -> None:
    every = services("site.yaml")
    site = every["site"]
    assert not any({"ports", "expose"} & set(service) for service in every.values())
    assert f"{settings('site')['MSFL_DATA']}:/data:ro" in site["volumes"]


@pytest.mark.parametrize(("file", "name", "port"), [("server.yaml", "server", "9446"), ("site.yaml", "site", "9447")])
def test_services_offer_the_health_that_their_image_asks_for(file: str, name: str, port: str) -> None:
    assert services(file)[name]["command"][-2:] == ["--health-port", port]
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert f"127.0.0.1:{port}" in dockerfile


@pytest.mark.parametrize("file", [Path(name) for files in FILES.values() for name in files], ids=str)
def test_every_file_says_how_it_is_used(file: Path) -> None:
    text = (COMPOSE / file).read_text()
    assert text.startswith("# ")
    assert f"-f {file}" in text
