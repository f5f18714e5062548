"""Read partition tables, ext4 and FAT, and edit FAT as a patch.

May import the ground (errors, progress, model, workers, files, resources) and devices.
Entry points: `reader.open_raw`, `partitions.read_partitions`, `patched.PatchedImage`,
`write_set.plan_write_set`, and `fat`.
"""
