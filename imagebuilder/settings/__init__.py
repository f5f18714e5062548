"""Turn YAML, tables and flags into NodeSettings, and report every problem with its line.

May import the ground (errors, model, progress, files, workers, resources), devices, disk,
images, plan.
Entry points: `load.read_classroom`, `lint.lint`.
"""
