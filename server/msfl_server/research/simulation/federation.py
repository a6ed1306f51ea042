"""A whole federation on one machine: the deployed apps, with virtual sites."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from msfl_client.rounds.app import build_app as build_client_app
from msfl_client.trainer import OnProgress
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError, RunError
from msfl_server.research.simulation.grid import Answer, InProcessGrid
from msfl_server.rounds.app import RunSettings, build_app
from msfl_server.rounds.loop import Listener
from msfl_server.rounds.sampling import num_sampled
from msfl_server.rounds.stage import StageRun

_REGISTERED_S = 60.0  # that Flower takes at most to register its virtual nodes

Backend = Literal["inprocess", "ray"]
# The site's name, the request's kind and content, and the answer: what is answered in its place.
Tamper = Callable[[str, str, RecordDict, RecordDict], RecordDict]


def simulate(
    stage_run: StageRun,
    sites: Sequence[SiteConfig],
    backend: Backend,
    listener: Listener,
    on_progress: OnProgress,
    tamper: Tamper | None = None,
) -> None:
    """Run, or resume, a stage of a study among virtual sites; checkpoints and the model appear in its folder.

    Args:
        stage_run: the stage.
        sites: who takes part.
        backend: where they run.
        listener: told of each round.
        on_progress: told what sites do.
        tamper: what becomes of the sites' answers, where an attack is simulated; in this process alone.

    Raises:
        RunError: a round had fewer answers than the quorum.
        InputError: Ray is asked for and missing.
    """
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it prints every message; the rounds are shown
    server_app = build_app(lambda _: RunSettings(stage_run, listener))
    site_list = tuple(sites)
    num_asked = num_sampled(stage_run.settings, len(site_list))
    if backend == "ray":
        _run_on_ray(server_app, site_list, num_asked)
        return
    client_app = _client_app(site_list, num_asked, on_progress)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    answer: Answer = client_app if tamper is None else _tampered(client_app, site_list, tamper)
    server_app(InProcessGrid(answer, len(site_list), [site.name for site in site_list]), context)


def _tampered(client_app: ClientApp, sites: tuple[SiteConfig, ...], tamper: Tamper) -> Answer:
    def answer(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if reply.has_content():
            kind = message.metadata.message_type
            reply.content = tamper(_site_at(sites, context).name, kind, message.content, reply.content)
        return reply

    return answer


def _client_app(sites: tuple[SiteConfig, ...], most_open: int, on_progress: OnProgress = lambda *_: None) -> ClientApp:
    """The app of all sites, whose process keeps so many contexts open between requests."""

    def site_of(context: Context) -> SiteConfig:
        from msfl_client.rounds.site_context import MOST_SITES, open_context  # of the process, not a copy sent to it

        open_context.most = min(most_open, MOST_SITES)
        return _site_at(sites, context)

    return build_client_app(site_of, on_progress, is_simulated=True)


def _named(server_app: ServerApp, names: Sequence[str]) -> ServerApp:
    """The app, whose grid says which site each node is: Flower registers them in the order of their partitions."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        until = time.monotonic() + _REGISTERED_S
        while len(in_order := sorted(grid.get_nodes(), key=lambda node: node.registered_at)) < len(names):
            if time.monotonic() > until:
                raise RunError(f"{len(in_order)} of {len(names)} virtual sites came up on Ray in {_REGISTERED_S:.0f} s")
            time.sleep(0.1)
        vars(grid)["site_names"] = dict(zip((node.node_id for node in in_order), names, strict=True))
        server_app(grid, context)

    return app


def _run_on_ray(server_app: ServerApp, sites: tuple[SiteConfig, ...], num_asked: int) -> None:
    """Flower's simulation engine; bars of single sites stay in Ray's processes, the rounds are shown."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise InputError("--backend ray needs Ray; install it with `pip install 'msfl[ray]'`") from None
    from flwr.simulation import run_simulation

    samples = num_asked < len(sites)
    client_app = (
        _client_app(sites, num_asked)
        if samples
        else build_client_app(lambda context: _site_at(sites, context), is_simulated=True)
    )
    try:
        run_simulation(
            server_app=_named(server_app, [one.name for one in sites]) if samples else server_app,
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
