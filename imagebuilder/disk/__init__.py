"""Partition tables, ext4 and FAT: read them, and edit FAT into a patch.

May import the ground (errors, progress, model, workers, files, resources) and devices.
Entry points: `reader.open_raw`, `partitions.read_partitions`, `patched.PatchedImage`,
`write_set.plan_write_set`, and `fat`.
"""
