"""Write image files from base and patch, and inspect images and cards.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings.
Entry points: `compose.open_composer`, `image.write_image`, `batch.Batch`, `inspect.inspect_disk`,
`apply.plan_apply`.
"""
