"""A round on several devices: a process for each, watched from here, gone when the round is over.

Processes start with the round and end with it, so between rounds the GPUs are free. This process takes no part
in the training: it follows the others, and whatever happens to one of them, or to itself, ends them all.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from msfl_client.segmentation.distributed_rank import END_GATHERED, END_WEIGHTS, JOB, START_SETS, START_WEIGHTS, Job
from msfl_client.trainer import OnStep
from msfl_client.training.site_strategy import Start
from msfl_common.errors import Code, RefusedError
from msfl_common.models.network import get_weights, set_weights
from msfl_common.system.devices import free_memory
from msfl_common.system.processes import child_environment, python_command

_LOG_CHARACTERS = 2000
_KILL_TIMEOUT_S = 10.0

Events = queue.Queue[tuple[int, dict[str, Any] | None]]  # rank, what it says; None: it has ended


def train_on_devices(network: torch.nn.Module, job: Job, on_step: OnStep, start: Start | None = None) -> float:
    """`train_round` by DistributedDataParallel; returns the mean loss, and trains `network` in place.

    Each batch is split over the devices and holds the patches that one device would get. The result is that of
    one device but for soft Dice, which each device takes over its own share of the batch, and for rounding.

    Raises:
        RefusedError: a process failed, or the study's deadline for a round has passed.
    """
    free_memory(torch.device(job.devices[0]))  # this process validated there; the round needs the room
    with TemporaryDirectory(prefix="msfl-round-") as name:
        folder = Path(name)
        (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
        save_file(get_weights(network), folder / START_WEIGHTS)
        if start is not None:
            start.save(folder / START_SETS)
        with _processes(folder, len(job.devices)) as (processes, events):
            loss = _follow(processes, events, job, folder, on_step)
        set_weights(network, load_file(folder / END_WEIGHTS))
        if start is not None and (folder / END_GATHERED).exists():
            start.gathered.update(load_tensors(folder / END_GATHERED))
    return loss


def _follow(processes: list[subprocess.Popen[str]], events: Events, job: Job, folder: Path, on_step: OnStep) -> float:
    """Hand on the steps until the first process has the result."""
    deadline_s = job.study.rounds.deadline_s
    end = time.monotonic() + deadline_s
    while True:
        try:
            rank, event = events.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            raise RefusedError(Code.INTERNAL, f"no result from {len(processes)} devices in {deadline_s:g} s") from None
        match event:
            case {"step": step, "loss": loss}:
                on_step(step, job.study.training.steps_per_round, loss)
            case {"mean_loss": mean_loss}:
                return float(mean_loss)
            case {"code": code, "detail": detail}:
                raise RefusedError(Code(code), f"{job.devices[rank]}: {detail}")
            case None:
                raise RefusedError(Code.INTERNAL, _last_words(job.devices[rank], processes[rank], folder, rank))


@contextmanager
def _processes(folder: Path, count: int) -> Iterator[tuple[list[subprocess.Popen[str]], Events]]:
    """Start a process per device and what listens to them; on leaving, none is left, nor any child of theirs."""
    processes: list[subprocess.Popen[str]] = []
    listeners: list[threading.Thread] = []
    events: Events = queue.Queue()
    try:
        for rank in range(count):
            with (folder / f"{rank}.log").open("w") as log:
                process = subprocess.Popen(
                    python_command("msfl_client.segmentation.distributed_rank", folder, rank),
                    env=child_environment(),
                    stdin=subprocess.PIPE,  # nothing is written: its end tells them that this process has died
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # a process group of its own, with the workers that load its patches
                )
            processes.append(process)
            assert process.stdout is not None
            listener = threading.Thread(target=_listen, args=(rank, process.stdout, events), daemon=True)
            listener.start()
            listeners.append(listener)
        yield processes, events
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver ends when the driver lets go
                process.wait(_KILL_TIMEOUT_S)
            assert process.stdin is not None
            process.stdin.close()
        for listener in listeners:
            listener.join(_KILL_TIMEOUT_S)


def _listen(rank: int, stream: IO[str], events: Events) -> None:
    with stream:
        for line in stream:
            events.put((rank, json.loads(line)))
    events.put((rank, None))


def _last_words(device: str, process: subprocess.Popen[str], folder: Path, rank: int) -> str:
    log = (folder / f"{rank}.log").read_text(encoding="utf-8", errors="replace").strip()
    return f"{device}: its process ended with code {process.wait(_KILL_TIMEOUT_S)}: {log[-_LOG_CHARACTERS:]}"
