"""Boot images in QEMU.

May import the ground (errors, model, progress, files, workers, resources) and the rooms
before it.
Entry point: `emulator.boot`.
"""
