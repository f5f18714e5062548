"""The block devices of this machine, and why one must not be written.

May import the ground (errors, model, progress, files, workers, resources).
Entry points: `inventory.list_devices`, `safety.refuse`, `blockdev.claim`.
"""
