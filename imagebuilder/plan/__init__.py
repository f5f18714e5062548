"""Plan the files of a node's boot partition, without side effects.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images.
Entry points: `node.plan_node`, `overlays.load_overlay`, `generations.detect`, `card_layout`.
"""
