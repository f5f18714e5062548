"""Read partition tables, ext4 and FAT, and edit FAT as a patch.

May import the ground (errors, model, progress, files, workers, resources), devices.
Entry points: `reader.open_raw`, `patched.PatchedImage`, `write_set.plan_write_set`.
"""
