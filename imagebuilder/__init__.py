"""Build and write Raspberry Pi images that set their hostname and join a cluster."""

__version__ = "0.2.0"
