"""The class on one board, for the instructor's own machine: read-only, on 127.0.0.1.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings, build, boot, shack, flash.
Entry point: `board.BoardServer`, which imports `local_server` late: an extra of the package.
"""
