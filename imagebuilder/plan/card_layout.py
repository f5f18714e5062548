"""Paths on the boot partition, ours and the vendor's."""

from __future__ import annotations

WIFI = "rpi-image/wifi/wpa_supplicant.conf"
STATUS = "rpi-image/status.json"
TARBALLS = "rpi-image/images/"
FOLDER = "rpi-image/"
NODE_ENV = "rpi-image/node.env"
RECORD = "rpi-image/made.json"
STOCK = "rpi-image/stock/"
CMDLINE = "cmdline.txt"
CONFIG = "config.txt"
APPEND = ".append"
