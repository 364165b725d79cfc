"""The configuration of a server: one YAML file, with its sessions as `config` has them."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator

from neuroloop.config import LslSettings, SessionSettings, Settings, explain
from neuroloop.errors import ConfigError


class FitSettings(Settings):
    """How many fit jobs a server takes; see POST /v1/fits."""

    running: int = Field(1, ge=1, le=64, description="at the same time; each is one process with one thread")
    waiting: int = Field(32, ge=0, le=10_000, description="that wait for one of them; further ones are refused")


class RayFitSettings(Settings):
    """What a fit takes of a node of the Ray cluster, and how often it begins anew where it lost its node."""

    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    max_retries: int = Field(1, ge=0, le=100, description="on other nodes, after a node was lost during the fit")


class RaySessionSettings(Settings):
    """What a session takes of a node of the Ray cluster, and so on which it can be."""

    num_cpus: float = Field(1.0, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="as nodes were given: ray start --resources '{\"amplifier\": 1}'"
    )


class RaySettings(Settings):
    """The Ray cluster on which fits and sessions run with `engine: ray`."""

    address: str = Field(
        "auto", min_length=1, description="HOST:PORT of the head; auto: the cluster of this machine; local: a new one"
    )
    fit: RayFitSettings = Field(default_factory=RayFitSettings)
    session: RaySessionSettings = Field(default_factory=RaySessionSettings)


class SupervisionSettings(Settings):
    """When a session's process is replaced from its last checkpoint, and when it is given up."""

    restarts: int = Field(5, ge=0, le=1000, description="so many within `within_s`; one more, and it has failed")
    within_s: float = Field(60.0, gt=0, le=86_400)
    backoff_s: float = Field(
        0.25, ge=0, le=60, description="before the second of them; twice as long before each further one, at most 10 s"
    )
    hang_s: float = Field(5.0, ge=1.0, le=3600, description="a process that says nothing for so long is ended")
    memory_mb: float | None = Field(
        None, gt=0, description="resident memory at which a process is ended; by default there is no limit"
    )


class RegistrySettings(Settings):
    """Where the model registry is; its weights are always in the server's folder, under `registry`."""

    url: str | None = Field(
        None, description="postgresql://USER:PASSWORD@HOST/DATABASE; by default SQLite in the server's folder"
    )


class ServerSettings(Settings):
    """A server and its sessions."""

    host: str = Field("127.0.0.1", description="beyond loopback only with access tokens: neuroloop token create")
    port: int = Field(8765, ge=0, le=65535, description="0: any free port, printed at start")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    folder: Path = Field(
        default_factory=lambda: user_data_path("neuroloop"),
        description="what the server keeps: tokens, models, the audit log",
    )
    outlive_s: float = Field(
        60.0, ge=0, le=86_400, description="how long sessions go on if the server dies, until a new one finds them"
    )
    host_names: list[str] = Field(
        default_factory=list, description="further names under which clients reach the server, a proxy's for example"
    )
    lsl: LslSettings = Field(default_factory=LslSettings)
    supervision: SupervisionSettings = Field(default_factory=SupervisionSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    fits: FitSettings = Field(default_factory=FitSettings)
    engine: Literal["local", "ray"] = Field("local", description="what runs fits and sessions")
    ray: RaySettings = Field(default_factory=RaySettings)
    sessions: list[SessionSettings] = Field(default_factory=list)

    @field_validator("sessions")
    @classmethod
    def _distinct_sessions(cls, sessions: list[SessionSettings]) -> list[SessionSettings]:
        names = [s.name for s in sessions]
        if len(set(names)) != len(names):
            raise ValueError(f"every session needs a name of its own; got {names}")
        return sessions


def is_loopback(host: str) -> bool:
    """Whether only programs of the same machine reach this address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path) -> ServerSettings:
    """The server configuration in a YAML file. Raises ConfigError."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping with keys such as 'sessions', got {type(data).__name__}")
    return parse(data)


def parse(data: dict[str, Any]) -> ServerSettings:
    """The server configuration from plain data. Raises ConfigError."""
    try:
        return ServerSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
