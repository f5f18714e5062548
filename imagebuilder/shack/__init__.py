"""The instructor's machine: services, keys, exports, labels and the state of the class.

May import the ground (errors, model, progress, files, workers, resources) and the rooms
before it.
Entry points: `folder.plan_shack`, `keystore`, `status`.
"""
