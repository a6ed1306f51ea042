"""The part of MSFL that the coordinator runs."""

import msfl_common  # noqa: F401  # before flwr: it switches Flower's reports off
