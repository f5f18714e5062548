"""Paths on the boot partition, ours and the vendor's."""

from __future__ import annotations

# Ours: all of it lies in one folder, which planning a node again empties of what is stale.
FOLDER = "rpi-image/"

# The node's settings as NAME='value' lines, for the installer and the node service.
NODE_ENV = f"{FOLDER}node.env"

# The installer, which each generation starts in its own way.
INSTALLER = f"{FOLDER}install"

# The user's own scripts: run by the installer, and by the node service.
SCRIPT_FOLDERS = (f"{FOLDER}first-boot/", f"{FOLDER}scripts/")

# The networks in the form of wpa_supplicant.
WIFI = f"{FOLDER}wifi/wpa_supplicant.conf"

# What the node service reports, written by the Pi.
STATUS = f"{FOLDER}status.json"

# Container images that the node service loads.
TARBALLS = f"{FOLDER}images/"

# The planner's own notes: what earlier plans made outside FOLDER.
RECORD = f"{FOLDER}made.json"

# The vendor's files that a plan replaced, under their own paths.
STOCK = f"{FOLDER}stock/"

# One image for a class: the files of each node that differ, in a folder for each identity.
IDENTITIES = f"{FOLDER}identities/"

# The vendor's: the kernel's command line and the firmware's settings (config.txt, os_prefix aside).
CMDLINE = "cmdline.txt"
CONFIG = "config.txt"

# An overlay's `cmdline.txt.append` and `config.txt.append` add to these two instead of replacing.
APPEND = ".append"
