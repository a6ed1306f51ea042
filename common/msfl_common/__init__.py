"""What a site and the coordinator share: configs, messages, models and metrics."""

__version__ = "0.1.0"
