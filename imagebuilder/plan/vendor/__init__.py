"""What vendors do: boards, firmware, and the files of an image on its boot partition.

May import the ground, and plan outside of this folder.
Entry points: `stock.StockBoot`, `cloud_init.merged_network`.
"""
