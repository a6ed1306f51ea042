"""`server.yaml`: where the coordinator's server listens, and under which names sites reach it."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from msfl_common.config.base import Frozen, validate
from msfl_common.config.secrets import Secret, refuse_password, refuse_variables
from msfl_common.config.spelling import HomePath
from msfl_common.errors import InputError
from msfl_common.system.reading import read_yaml

Port = Annotated[int, Field(ge=1, le=65_535)]
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST_HOST = 253


class ServerConfig(Frozen):
    """The coordinator's server."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    hosts: tuple[str, ...] = Field(
        min_length=1, description="host names or IP addresses of the server; sites use the first"
    )
    bind: str = Field("0.0.0.0", description="IP address that the port for sites listens on")
    port: Port = Field(9443, description="port for sites; answers them and nothing else")
    public_port: Port | None = Field(
        None, description="port that sites use when a reverse proxy stands in front; null: the one above"
    )
    control_port: Port = Field(9444, description="port for this machine alone: registers sites, starts runs")
    mlflow: str | None = Field(None, description="URI of an MLflow server; null: one is started here")
    mlflow_login: Secret | None = Field(
        None,
        description="file of mode 0600 with USER:PASSWORD for that MLflow server, relative to this file, or ${NAME}, "
        "an environment variable that holds it; null: none, or those of MLflow's own environment variables",
    )
    mlflow_port: Port = Field(9445, description="port for this machine alone: MLflow's pages")
    start_from: HomePath | None = Field(
        None,
        description="what a segmentation or a deep model starts from, relative to this file: a model folder or a "
        "checkpoint of the same network, a MONAI bundle; a ResNet18's weights (safetensors) for pretrained-resnet2d, "
        "the model folder of a segmentation for lesion-encoder; null: random weights",
    )
    model: HomePath | None = Field(
        None,
        description="the folder of the model that a study with `evaluate` measures, relative to this file; null: none",
    )

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _is_address(host) and not _is_name(host):
                raise ValueError("each is a host name or an IP address, without https:// and port")
        return value

    @field_validator("bind")
    @classmethod
    def _is_bind_address(cls, value: str) -> str:
        if not _is_address(value):
            raise ValueError("an IP address is needed; 0.0.0.0 stands for every network card")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.port, self.control_port, self.mlflow_port]
        if len(set(ports)) < len(ports):
            raise ValueError(f"port, control_port, mlflow_port: found {ports}; each needs a number of its own")
        return self

    @property
    def address(self) -> str:
        """host:port as sites reach the server."""
        host = self.hosts[0]
        return f"{f'[{host}]' if ':' in host else host}:{self.public_port or self.port}"


def load_server(path: Path) -> ServerConfig:
    """Read `server.yaml`.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not validate.
        InputError: it holds a password, which no message repeats.
    """
    content = read_yaml(path)
    fix = "put USER:PASSWORD into a file of mode 0600, and name that as `mlflow_login`"
    refuse_password(str(content.get("mlflow")), f"{path}: mlflow", fix)
    refuse_variables(content, str(path), "mlflow_login")
    login = content.get("mlflow_login")
    if isinstance(login, str) and ":" in login and not (path.resolve().parent / login).exists():
        raise InputError(
            f"{path}: mlflow_login: holds a password, which would be in logs; {fix}, or a variable as ${{NAME}}"
        )
    server = validate(ServerConfig, content, str(path))
    folder = path.resolve().parent
    named = {name: getattr(server, name) for name in ("start_from", "model", "mlflow_login")}
    return server.model_copy(update={name: folder / value for name, value in named.items() if isinstance(value, Path)})


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    labels = text.split(".")
    # Digits and dots alone are a mistyped IP address.
    return len(text) <= _LONGEST_HOST and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
