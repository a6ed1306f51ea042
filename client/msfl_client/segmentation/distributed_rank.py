"""What each process of a round on several devices runs.

The command is `python -I -m msfl_client.segmentation.distributed_rank FOLDER RANK`. It tells the process that
started it, one JSON line each on stdout, the steps (from rank 0), the mean loss once the trained weights are written
(from rank 0), or the code and the detail of an error.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as map_file
from safetensors.torch import save_file as save_tensors
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from msfl_client.segmentation.loop import is_out_of_memory, train_round
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader, Rank
from msfl_client.trainer import OnStep
from msfl_client.training.frozen import frozen_layers
from msfl_client.training.site_strategy import read_start
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.system.devices import cap_memory
from msfl_common.system.memory import freed_memory_kept

JOB, START_WEIGHTS, END_WEIGHTS = "job.json", "start.safetensors", "end.safetensors"
END_GATHERED = "gathered.safetensors"  # what the study's strategy has added up over the steps
START_SETS = "sets.safetensors"  # what the study's strategy starts from, beside the weights
EXCHANGE_TIMEOUT = timedelta(minutes=5)  # for the slowest device, between two steps

Say = Callable[[dict[str, object]], None]


class Job(BaseModel):
    """A round on several devices.

    Attributes:
        study: what is trained.
        round_number: from 1.
        cases: files of prepared cases.
        seed: of the stream of patches.
        devices: one per process, all GPUs or all `cpu`.
        memory_fraction: share of a GPU's memory that each process may take.
        micro_batches: as of `train_round`.
    """

    model_config = ConfigDict(frozen=True)

    study: StudyConfig
    round_number: int
    cases: tuple[Path, ...]
    seed: int
    devices: tuple[str, ...]
    memory_fraction: float = 1.0
    micro_batches: int = 1


def train_rank(job: Job, rank: Rank, folder: Path, on_step: OnStep) -> float:
    """This device's part of the round; rank 0 writes the weights. Returns the mean loss over all devices."""
    device = torch.device(job.devices[rank.number])
    torch.set_flush_denormal(True)
    torch.set_num_threads(max(1, torch.get_num_threads() // rank.count))
    cap_memory(device, job.memory_fraction)
    dataset = PatchDataset(
        [_map_network_input(path) for path in job.cases], job.study.training, job.seed, job.study.inputs.num_regions
    )
    loader = PatchLoader(dataset, device, rank)
    network = build_network(job.study)
    weights = load_file(folder / START_WEIGHTS)
    set_weights(network, weights)
    start = read_start(folder / START_SETS, job.study, job.round_number, weights)
    _join(device, rank, folder)
    # DistributedDataParallel takes the plain mean over devices; this makes it the mean over patches.
    batch_size = job.study.training.batch_size
    weight = len(rank.share(batch_size)) * rank.count / batch_size
    number, parts = job.round_number, job.micro_batches
    with freed_memory_kept(), frozen_layers(network.to(device), job.study, number):
        device_ids = [device.index] if device.type == "cuda" else None
        parallel = DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)
        loss = train_round(parallel, loader, job.study, number, device, on_step, parts, weight, start)
    total = torch.tensor(loss * weight, device=device)
    distributed.all_reduce(total)
    if rank.number == 0:
        save_file(get_weights(network), folder / END_WEIGHTS)
        if start is not None and start.gathered:
            save_tensors(start.gathered, folder / END_GATHERED)
    return float(total) / rank.count


def _join(device: torch.device, rank: Rank, folder: Path) -> None:
    """Meet the other devices of this machine, by a file and the loopback interface: no port is open to others."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed.FileStore(str(folder / "store"), rank.count),  # type: ignore[attr-defined]
        rank=rank.number,
        world_size=rank.count,
        timeout=EXCHANGE_TIMEOUT,
    )


def _map_network_input(path: Path) -> NetworkInput:
    """A prepared case whose voxels stay in its file, mapped: the processes share one copy in memory."""
    stored = map_file(path)
    label = stored.get("label")
    return NetworkInput(stored["image"].numpy(), None if label is None else label.numpy(), stored["affine"].numpy())


def code_of_rank(error: Exception) -> Code:
    """The code that stands for an error of this process."""
    if is_out_of_memory(error):
        return Code.OUT_OF_MEMORY
    return error.code if isinstance(error, RefusedError) else Code.INTERNAL


def _end_with_parent() -> None:
    """Wait for the end of stdin, which nothing is written to: the process that started this one is gone."""
    os.read(0, 1)
    os._exit(1)


def main(folder: Path, number: int) -> None:
    """Run this process's part and say how it goes."""
    with os.fdopen(os.dup(1), "w", buffering=1) as stream:
        os.dup2(2, 1)  # whatever a library prints goes to the log
        lifeline = threading.Thread(target=_end_with_parent, daemon=True)
        lifeline.start()

        def say(event: dict[str, object]) -> None:
            stream.write(json.dumps(event) + "\n")

        def on_step(step: int, _: int, loss: float) -> None:
            if number == 0:
                say({"step": step, "loss": loss})

        try:
            job = Job.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
            mean_loss = train_rank(job, Rank(number, len(job.devices)), folder, on_step)
        except Exception as error:
            traceback.print_exc()
            say({"code": code_of_rank(error).value, "detail": f"{type(error).__name__}: {error}"})
        else:
            if number == 0:
                say({"mean_loss": mean_loss})
        lifeline.join()  # whoever leaves first makes the others fail: all wait to be ended


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
