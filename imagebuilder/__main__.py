"""`python -m imagebuilder` is `rpi-image`."""

from imagebuilder.cli import main

main()
