"""What masks add to a round of a real federation on loopback: three sites, the default network, plain and masked."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import Rounds, StudyConfig
from tests.benchmarks.federation.recovery import SITES, bids
from tests.benchmarks.figure import Figure
from tests.conftest import tiny_settings
from tests.integration.deployment import BIN, Deployment, deployment, wait_for

ROUNDS = 8


def measure() -> list[Figure]:
    """Seconds of a round, medians without the first."""
    with tempfile.TemporaryDirectory() as folder:
        data = {name: bids(Path(folder) / "data" / name) for name in SITES}
        plain = _round_s(Path(folder) / "plain", study_of("none"), data)
        masked = _round_s(Path(folder) / "masked", study_of("masks"), data)
    how = (
        f"medians of {ROUNDS - 1} rounds: {plain:.2f} s plain, {masked:.2f} s masked, {masked / plain:.2f}x; 3 sites "
        "on loopback, the default network, 4 steps and validation"
    )
    allowed = max(5.0, 0.25 * plain)
    return [Figure("what masks add to a round on loopback", masked - plain, "s", allowed, "at_most", "plain", how)]


def study_of(method: str) -> StudyConfig:
    """The tiny study with the network of a real one."""
    tiny = tiny_settings()
    return tiny.model_copy(
        update={
            "name": method,
            "network": StudyConfig(name="default").network,
            "training": tiny.training.model_copy(update={"steps_per_round": 4}),
            "rounds": Rounds(num_rounds=ROUNDS, quorum=3),
            "secure_aggregation": SecureAggregation.model_validate({"method": method}),
        }
    )


def _round_s(base: Path, study: StudyConfig, data: dict[str, Path]) -> float:
    with deployment(base, study, data) as made:
        made.start_server()
        made.start_sites(*data)
        if study.secure_aggregation.method == "masks":
            for name in data:
                _confirm(made, name)
        code = made.wait_for_end(600)
        assert code == 0, made.logs()
        history = json.loads((made.study.run / "summary.json").read_text())["history"]
    return median(one["seconds"] for one in history[1:])


def _confirm(made: Deployment, site: str) -> None:
    command = [BIN / "msfl-client", "roster", made.site(site) / "site.yaml"]

    def confirmed() -> bool:
        shown = subprocess.run([*command, "--json"], capture_output=True, check=False)
        if shown.returncode != 0:  # it has not come yet
            return False
        (roster,) = json.loads(shown.stdout)["rosters"]
        subprocess.run([*command, "--confirm", roster["digest"]], capture_output=True, check=True)
        return True

    wait_for(f"the roster at {site}", confirmed, 180, made.logs)
