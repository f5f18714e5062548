"""`make demo`: the main job on the embedded sample image, through a real download.

A web server on the loopback serves the sample and its checksum file as a publisher would, so that
the build takes the very path it takes for a vendor's image. Needs neither root nor Debian packages.
"""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

from imagebuilder.resources import shipped_folder

SAMPLE = "hypriot-rpi-sample.img.zst"
BUILD = "build --profile armv7 --hostname pi-03 --image {url} -o build/pi-03.img"
SHACK = "--shack 192.168.2.1 --registry 192.168.2.1:5000"
COMMANDS = (f"{BUILD} {SHACK}", "inspect build/pi-03.img")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps its log to itself."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> int:
    """Serve the sample, run the commands as a user would and give the first failure's code."""
    handler = functools.partial(QuietHandler, directory=str(shipped_folder("profiles") / "sample"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{SAMPLE}"
        codes = (_run(command.format(url=url).split()) for command in COMMANDS)
        failed = next((code for code in codes if code), 0)
        server.shutdown()
    return failed


def _run(arguments: list[str]) -> int:
    sys.stdout.write(f"\n$ rpi-image {' '.join(arguments)}\n")
    sys.stdout.flush()
    program = Path(sys.executable).with_name("rpi-image")
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    return subprocess.run([program, *arguments], check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
