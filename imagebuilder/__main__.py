"""Run `rpi-image` as `python -m imagebuilder`."""

from __future__ import annotations

from imagebuilder.cli.main import main

main()
