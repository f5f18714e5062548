"""The instructor's machine: its services, keys, exports and labels, and which nodes joined.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings, build, boot.
Entry points: `folder.plan_shack`, `folder.write_shack`, `keystore.with_identities`,
`status.compare`, `exports.EXPORTS`.
"""
