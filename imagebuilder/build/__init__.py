"""Write image files from base and patch, and inspect images and cards.

May import the ground (errors, model, progress, files, workers, resources), devices, disk,
images, plan, settings.
Entry points: `compose.open_composer`, `image.write_image`, `batch`, `inspect`.
"""
