"""Decide, without side effects, which files make a boot partition one node.

May import the ground (errors, model, progress, files, workers, resources), devices, disk,
images.
Entry points: `node.plan_node`, `card_layout`.
"""
