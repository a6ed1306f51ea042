"""A whole federation on one machine: the deployed apps, with virtual sites."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from msfl_client.rounds.app import build_app as build_client_app
from msfl_client.trainer import OnProgress
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError, RunError
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.app import RunSettings, build_app
from msfl_server.rounds.loop import Listener
from msfl_server.rounds.stage import StageRun

Backend = Literal["inprocess", "ray"]


def simulate(
    stage_run: StageRun,
    sites: Sequence[SiteConfig],
    backend: Backend,
    listener: Listener,
    on_progress: OnProgress,
) -> None:
    """Run, or resume, a stage of a study among virtual sites; checkpoints and the model appear in its folder.

    Raises:
        RunError: a round had fewer answers than the quorum.
        InputError: Ray is asked for and missing.
    """
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it prints every message; the rounds are shown
    server_app = build_app(lambda _: RunSettings(stage_run, listener))
    site_list = tuple(sites)
    if backend == "ray":
        _run_on_ray(server_app, site_list)
        return
    client_app = build_client_app(lambda context: _site_at(site_list, context), on_progress, is_simulated=True)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    server_app(InProcessGrid(client_app, len(site_list)), context)


def _run_on_ray(server_app: ServerApp, sites: tuple[SiteConfig, ...]) -> None:
    """Flower's simulation engine; bars of single sites stay in Ray's processes, the rounds are shown."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise InputError("--backend ray needs Ray; install it with `pip install 'msfl[ray]'`") from None
    from flwr.simulation import run_simulation

    client_app = build_client_app(lambda context: _site_at(sites, context), is_simulated=True)
    try:
        run_simulation(
            server_app=server_app,
            client_app=client_app,
            num_supernodes=len(sites),
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    except RuntimeError as error:
        if isinstance(error.__cause__, RunError):
            raise error.__cause__ from None
        raise


def _site_at(sites: tuple[SiteConfig, ...], context: Context) -> SiteConfig:
    return sites[int(str(context.node_config["partition-id"]))]
