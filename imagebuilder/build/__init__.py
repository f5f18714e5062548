"""Base and patch to image files, and what an image or card holds.

May import the ground (errors, model, progress, files, workers, resources), devices, disk,
images, plan, settings.
Entry points: `compose.open_composer`, `image.write_image`, `batch`, `inspect`.
"""
