"""List the block devices of this machine and decide whether one may be written.

May import the ground (errors, progress, model, workers, files, resources).
Entry points: `inventory.list_devices`, `inventory.load_device`, `safety.refuse`, `blockdev.claim`.
"""
