"""FAT12, FAT16 and FAT32 boot partitions: read, and edit in a copy-on-write view.

May import the ground and disk.
Entry points: `volume.BootVolume`, `edit.BootBase`.
"""
