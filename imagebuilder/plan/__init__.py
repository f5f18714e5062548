"""Plan the files of a node's boot partition, without side effects.

May import the ground (errors, model, progress, files, workers, resources), devices, disk,
images.
Entry points: `node.plan_node`, `card_layout`.
"""
