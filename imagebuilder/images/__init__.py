"""From a name, file or URL to an unpacked, checked base image in the cache.

May import the ground (errors, model, progress, files, workers, resources), devices, disk.
Entry point: `obtain.obtain_base`.
"""
