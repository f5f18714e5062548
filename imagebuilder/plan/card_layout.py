"""Paths on the boot partition, ours and the vendor's."""

from __future__ import annotations

# Our own folder; a plan removes the files of earlier plans from it.
FOLDER = "rpi-image/"

# The node's settings as NAME='value' lines, for the installer and the node service.
NODE_ENV = f"{FOLDER}node.env"

# The SSH keys for the login.
AUTHORIZED_KEYS = f"{FOLDER}authorized_keys"

# The installer; how it is started depends on the generation.
INSTALLER = f"{FOLDER}install"

# The user's own scripts: run by the installer, and by the node service.
SCRIPT_FOLDERS = (f"{FOLDER}first-boot/", f"{FOLDER}scripts/")

# The wireless networks, for wpa_supplicant.
WIFI = f"{FOLDER}wifi/wpa_supplicant.conf"

# The status, written by the node service on the Pi.
STATUS = f"{FOLDER}status.json"

# Container images for the node service to load.
TARBALLS = f"{FOLDER}images/"

# Debian packages for the node service to install, and their digests as sha256sum(1) has them.
PACKAGES = f"{FOLDER}packages/"
PACKAGE_SUMS = f"{PACKAGES}SHA256SUMS"

# The record of files that earlier plans made outside FOLDER.
RECORD = f"{FOLDER}made.json"

# Files of the vendor that a plan replaced, by their own paths.
STOCK = f"{FOLDER}stock/"

# A plan that `apply` is writing: copies of its files, and the list of them, which
# the installer carries out if a power cut came between. The list has its name when it is complete.
NEXT = f"{FOLDER}next/"
NEXT_LIST = f"{FOLDER}next.list"

# One image for a class: files that differ between nodes, in one folder for each identity.
IDENTITIES = f"{FOLDER}identities/"

# The kernel command line and the settings of the firmware; `os_prefix` is not supported.
CMDLINE = "cmdline.txt"
CONFIG = "config.txt"

# Files of an overlay with this suffix are appended to these two instead of replacing them.
APPEND = ".append"
