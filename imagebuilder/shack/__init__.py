"""The instructor's machine: services, keys, exports, labels and the state of the class.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings, build, boot.
Entry points: `folder.plan_shack`, `folder.write_shack`, `keystore.with_identities`,
`status.compare`, `exports.EXPORTS`.
"""
