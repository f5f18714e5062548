"""Turn a name, file or URL into an unpacked and checked base image in the cache.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk.
Entry points: `obtain.obtain_base`, `list_snapshot.fetch_snapshot`, `cache.Cache`.
"""
