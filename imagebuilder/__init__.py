"""Raspberry Pi images that boot, name themselves and join the cluster."""

__version__ = "0.2.0"
