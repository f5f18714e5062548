"""Read FAT12, FAT16 and FAT32 boot partitions and edit them in a copy-on-write view.

May import the ground, and disk outside of this folder.
Entry points: `volume.BootVolume`, `edit.BootBase`.
"""
