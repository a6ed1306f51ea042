"""A server process that plays rounds without training, for benchmarks: `STUDY_DIR MEGABYTES ROUNDS MESSAGES OUT`.

MESSAGES is how often the weights go out and come back in a round: 2 stand for training and validation.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from msfl_server.aggregation.fedavg import aggregate

from msfl_common.config.study import StudyConfig, load_study
from msfl_common.messages.records import RoundTask, pack_task, unpack_update
from msfl_common.models.weights import Weights
from msfl_server.aggregation.update_store import update_store
from msfl_server.flower.control import LinkAddress
from msfl_server.flower.coordinator import control_secret
from msfl_server.flower.server_process import open_run
from msfl_server.rounds.exchange import Question, ask
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import load_server

NUM_ARRAYS = 20
NUM_SITES = 3


def play(  # type: ignore[no-untyped-def]
    grid, names: dict[int, str], study: StudyConfig, number: int, weights: Weights, folder: StudyFolder
) -> Weights:
    """Weights out, updates in, averaged, as `msfl_server.rounds.loop.run_round` does."""
    with update_store(folder.run) as store:
        question = Question(
            "train",
            lambda: pack_task(RoundTask(study, number), weights),
            lambda site, content: store.keep(site, unpack_update(content, weights)),
            "BAD_UPDATE",
            weights,
        )
        answers = ask(grid, names, question, number, study.rounds)
        assert not answers.failures, answers.failures
        return aggregate({names[node]: update for node, update in answers.replies.items()}, weights)


def main() -> None:
    """Play the rounds and write the seconds of each, and the size of the database after each."""
    folder = StudyFolder(Path(sys.argv[1]))
    megabytes, rounds, messages = float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    study: StudyConfig = load_study(folder.study_file)
    port = load_server(folder.server_file).control_port
    link = LinkAddress(port, folder.ca_certificate, control_secret(folder), folder.database)
    random = np.random.default_rng(0)
    size = int(megabytes * 1e6 / 4 / NUM_ARRAYS)
    weights = {f"layer{number}": random.random(size, dtype=np.float32) for number in range(NUM_ARRAYS)}
    seconds, database = [], []
    with open_run(link) as (grid, _):
        while len(grid.presence()) < NUM_SITES:
            time.sleep(0.2)
        for number in range(1, rounds + 1):
            names = {node: here.site for node, here in grid.presence().items()}
            started = time.monotonic()
            for _ in range(messages):
                weights = play(grid, names, study, number, weights, folder)
            seconds.append(time.monotonic() - started)
            database.append(_bytes_in_flight(folder.root))
    Path(sys.argv[5]).write_text(json.dumps({"seconds": seconds, "database": database}))


def _bytes_in_flight(root: Path) -> int:
    """Size of the SuperLink's database with its log, and of the objects beside it."""
    kept = [*root.glob("superlink.db*"), *root.glob("superlink.db.objects/*")]
    return sum(path.stat().st_size for path in kept if path.is_file())


if __name__ == "__main__":
    main()
