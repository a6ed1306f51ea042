"""A site without data: it answers every round at once, with weights of its own. Run as a process by benchmarks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message

from msfl_client.connection.fleet_client import DisconnectedError, join
from msfl_client.connection.message_limits import Bounds
from msfl_client.connection.node import serve
from msfl_client.connection.server_trust import trust_of
from msfl_client.connection.status import StatusFile
from msfl_client.site.keys import load_key
from msfl_client.site.kit_approval import kit_to_use
from msfl_common.config.site import load_site
from msfl_common.messages.records import ARRAYS, ModelUpdate, pack_update


def main() -> None:
    """Serve the site of a site.yaml until killed."""
    site = load_site(Path(sys.argv[1]))
    approved, key = kit_to_use(site), load_key(site.key)
    kit = approved.kit
    shift = ord(site.name[-1]) / 1000  # each site's weights differ: equal objects would travel once

    def echo(message: Message, _: Context) -> Message:
        blocks = message.content.array_records[ARRAYS]
        vector = np.concatenate([array.numpy() for array in blocks.values()]) + np.float32(shift)
        return Message(pack_update(ModelUpdate({"all": vector}, 10, 0.5, 0.0)), reply_to=message)

    while True:
        try:
            with join(kit.address, trust_of(approved), key, None, Bounds(10**9, 10**4)) as fleet:
                serve(fleet, echo, site, StatusFile(site.state, kit.study, kit.address))
        except DisconnectedError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
