"""`python -m imagebuilder` is `rpi-image`."""

from __future__ import annotations

from imagebuilder.cli.main import main

main()
