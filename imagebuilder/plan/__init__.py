"""Decide which files make a boot partition one node; nothing is written.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images.
Entry points: `node.plan_node`, `overlays.load_overlay`, `generations.detect`, `card_layout`.
"""
