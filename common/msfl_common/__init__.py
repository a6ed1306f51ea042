"""What a site and the coordinator share: configs, messages, models and metrics."""

import os

__version__ = "0.1.0"

# Flower reports its use to its makers, and asks for newer versions, unless told not to before its first import.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
