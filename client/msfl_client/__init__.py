"""The part of MSFL that runs inside a hospital."""

import msfl_common  # noqa: F401  # before flwr: it switches Flower's reports off
