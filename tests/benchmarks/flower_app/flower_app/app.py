"""Federated averaging of weights that no site trains."""

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Weights of its own, at once."""
    shift = float(context.node_config["shift"])
    arrays = {name: Array(array.numpy() + np.float32(shift)) for name, array in message.content["arrays"].items()}
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 10})})
    return Message(content, reply_to=message)


@client.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """A number."""
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 10, "loss": 0.5})}), reply_to=message)


class Timed(FedAvg):
    """Flower's strategy, with the time of each round's start."""

    def __init__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.started: list[float] = []

    def configure_train(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """See Flower."""
        self.started.append(time.monotonic())
        return super().configure_train(*args, **kwargs)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Play the rounds and write down their seconds."""
    config = context.run_config
    random = np.random.default_rng(0)
    size = int(float(config["megabytes"]) * 1e6 / 4 / 20)
    arrays = ArrayRecord({f"layer{i}": Array(random.random(size, dtype=np.float32)) for i in range(20)})
    strategy = Timed(fraction_evaluate=float(config["evaluate"]), min_available_nodes=3, min_train_nodes=3)
    strategy.start(grid, arrays, num_rounds=int(config["rounds"]))
    times = [*strategy.started, time.monotonic()]
    Path(str(config["out"])).write_text(json.dumps([end - start for start, end in pairwise(times)]))
