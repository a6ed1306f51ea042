"""Benchmarks of a real federation on loopback: three sites, TLS and node authentication on."""
