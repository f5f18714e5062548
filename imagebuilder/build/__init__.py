"""From base and patch to image files; report what an image or card contains.

May import the ground (errors, progress, model, workers, files, resources) and devices, disk,
images, plan, settings.
Entry points: `compose.open_composer`, `image.write_image`, `batch.Batch`, `inspect.inspect_disk`.
"""
