"""The files that people write: `study.yaml` and `site.yaml`."""
