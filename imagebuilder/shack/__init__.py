"""The machine of the instructor: its services, keys, exports, labels, and who is there.

May import the ground (errors, model, progress, files, workers, resources) and the rooms
before it.
Entry points: `folder.plan_shack`, `keystore`, `status`.
"""
