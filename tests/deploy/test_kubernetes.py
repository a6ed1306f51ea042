"""The Kubernetes manifests, against the API's own schemas."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.services import DEPLOY

KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
DOCUMENTS: list[dict[str, Any]] = [
    document for path in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((DEPLOY / path).read_text())
]
BY_NAME = {f"{document['kind']}/{document['metadata']['name']}": document for document in DOCUMENTS}
PODS = {
    name: document["spec"]["template"] for name, document in BY_NAME.items() if "template" in document.get("spec", {})
}
CONTAINERS = {
    f"{name}/{container['name']}": container
    for name, pod in PODS.items()
    for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
}


@pytest.mark.parametrize("version", ["1.27", "1.33"])
@pytest.mark.parametrize("name", BY_NAME)
def test_manifests_follow_the_api(name: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    validator.validate(BY_NAME[name], version, strict=True)


def test_kustomize_takes_in_every_manifest_and_the_one_nginx_template() -> None:
    on_disk = {f"kubernetes/{path.name}" for path in (DEPLOY / "kubernetes").iterdir()}
    assert set(KUSTOMIZATION["resources"]) == on_disk
    [config] = KUSTOMIZATION["configMapGenerator"]
    assert all((DEPLOY / file).is_file() for file in config["files"])
    volumes = PODS["StatefulSet/msfl-server"]["spec"]["volumes"]
    assert {"name": "template", "configMap": {"name": config["name"]}} in volumes


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_meet_the_restricted_pod_standard(name: str) -> None:
    container = CONTAINERS[name]
    pod = PODS[name.rsplit("/", 1)[0]]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_images_are_pinned(name: str) -> None:
    """By a digest that has to be looked up first."""
    digests = {image["name"]: image.get("digest") for image in KUSTOMIZATION["images"]}
    assert digests[CONTAINERS[name]["image"].split(":")[0]] == "sha256:DIGEST"


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_a_container_mounts_is_there(name: str) -> None:
    pod = BY_NAME[name.rsplit("/", 1)[0]]["spec"]
    volumes = {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in pod.get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in CONTAINERS[name]["volumeMounts"]} <= volumes


def test_the_server_is_probed_by_the_one_probe() -> None:
    server = CONTAINERS["StatefulSet/msfl-server/server"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert server[kind]["exec"]["command"] == ["python", "-I", "-m", "msfl_common.system.health", "127.0.0.1:9446"]
    assert server["args"] == ["start", "/study", "--health-port", "9446"]
    assert BY_NAME["StatefulSet/msfl-server"]["spec"]["replicas"] == 1


def test_only_nginx_is_reached_from_outside() -> None:
    outside = [d for d in DOCUMENTS if d["kind"] == "Service" and d["spec"].get("type", "ClusterIP") != "ClusterIP"]
    assert [service["metadata"]["name"] for service in outside] == ["msfl"]
    assert outside[0]["spec"]["ports"][0]["targetPort"] == "sites"
    holders = [name for name, c in CONTAINERS.items() if {"name": "sites", "containerPort": 8443} in c.get("ports", [])]
    assert holders == ["StatefulSet/msfl-server/nginx"]
    environment = {entry["name"]: entry["value"] for entry in CONTAINERS[holders[0]]["env"]}
    assert environment["MSFL_LISTEN"] == "8443"
    assert environment["MSFL_SUPERLINK"].startswith("127.0.0.1:")


def test_what_is_not_allowed_is_kept_in_and_out() -> None:
    both = ["Ingress", "Egress"]
    assert BY_NAME["NetworkPolicy/nothing"]["spec"] == {"podSelector": {}, "policyTypes": both}
    allowed = {
        document["spec"]["podSelector"]["matchLabels"]["app"]: document["spec"]
        for document in DOCUMENTS
        if document["kind"] == "NetworkPolicy" and "ingress" in document["spec"]
    }
    assert {tuple(policy["policyTypes"]) for policy in allowed.values()} == {tuple(both)}
    assert allowed["msfl-server"]["ingress"] == [{"ports": [{"port": 8443}]}]
    apps = {"msfl-server": "mlflow", "mlflow": "postgres", "postgres": None}
    for app, next_one in apps.items():
        reached = [
            rule for rule in allowed[app]["egress"] if "podSelector" in rule["to"][0] and len(rule["to"][0]) == 1
        ]
        assert [rule["to"] for rule in reached] == [[{"podSelector": {"matchLabels": {"app": next_one}}}]] * bool(
            next_one
        )
        others = [rule for rule in allowed[app]["egress"] if rule not in reached]
        assert all({port["port"] for port in rule["ports"]} == {53} for rule in others)
        assert all("namespaceSelector" in place for rule in others for place in rule["to"])
        if next_one:
            assert allowed[next_one]["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": app}}}]


def test_nginx_is_given_every_variable_of_its_template_and_no_key_of_the_authority() -> None:
    nginx = CONTAINERS["StatefulSet/msfl-server/nginx"]
    template = (DEPLOY / "nginx" / "nginx.conf.template").read_text()
    given = {entry["name"] for entry in nginx["env"] if entry["name"].startswith("MSFL_")}
    assert set(re.findall(r"\$\{(MSFL_\w+)\}", template)) == given
    study = [mount for mount in nginx["volumeMounts"] if mount["name"] == "study"]
    assert {mount["subPath"] for mount in study} == {"pki/ca.crt", "pki/server.crt", "pki/server.key"}
    assert all(mount["readOnly"] for mount in study)
