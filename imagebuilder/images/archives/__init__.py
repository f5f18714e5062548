"""Recognize, read and write compressed images: zip, tar, gz, xz, zst and bz2.

May import the ground and the rooms before images, and images outside of this folder.
Entry points: `unpack.open_stream`, `formats.kind_of`, `compress.pack`.
"""
