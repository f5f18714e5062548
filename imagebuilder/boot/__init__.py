"""Boot images in QEMU.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings, build.
Entry point: `emulator.boot_image`.
"""
