"""What the vendor and the owner of an image put on its boot partition, beside our own files.

May import the ground, and plan outside of this folder.
Entry points: `stock.StockBoot`, `cloud_init.merged_network`.
"""
