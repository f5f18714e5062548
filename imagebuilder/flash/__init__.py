"""Base and patch onto cards: claim, write, verify, ledger, station.

May import the ground (errors, model, progress, files, workers, resources) and the rooms
before it.
Entry points: `run`, `verify`.
"""
