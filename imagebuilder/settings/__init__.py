"""Turn YAML, tables and flags into NodeSettings, and report every problem with its line.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan.
Entry points: `load.read_classroom`, `lint.lint_classroom`, `catalog.list_images`.
"""
