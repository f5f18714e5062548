"""Runs rpi-image in children of a process that has imported it.

Starting Python and importing the program takes half a second, and the tests do it many hundred
times. A child has the arguments, the environment, the folder and the files of its caller; what it
shares with the others is only what was imported. Tests of the start itself start the program.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagebuilder

REQUEST_BYTES = 1 << 20
TIMEOUT_SECONDS = 300
# Imported by functions of ours, when they are called.
LATER = ("cryptography.x509", "jinja2", "pyfatfs", "requests", "tqdm", "yaml")


@dataclass
class ProgramServer:
    """The process that the others are children of; it ends with its standard input."""

    folder: tempfile.TemporaryDirectory[str]
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls) -> ProgramServer:
        """Start it, and wait until it listens."""
        folder = tempfile.TemporaryDirectory(prefix="rpi-image-program-")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.lib.program_server", f"{folder.name}/socket"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        return cls(folder, process)

    def run(
        self, arguments: list[str], cwd: Path | None, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run the program to its end and return what it printed, as subprocess.run does."""
        request = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "env": environment}
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            connection.settimeout(TIMEOUT_SECONDS)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
            connection.connect(f"{self.folder.name}/socket")
            message = json.dumps(request).encode()
            socket.send_fds(connection, [message], [out.fileno(), err.fileno()])
            answer = connection.recv(16)
            assert answer, "the program's parent has ended"
            texts = [Path(f"/proc/self/fd/{file.fileno()}").read_text() for file in (out, err)]
        return subprocess.CompletedProcess(["rpi-image", *arguments], int(answer), *texts)

    def stop(self) -> None:
        """End it."""
        with self.process:
            self.process.communicate()
        self.folder.cleanup()


def _serve(listener: socket.socket) -> dict[str, Any]:
    """Return in a child for each request; end the server when nobody is left to ask."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener.settimeout(None)
    while True:
        connection, _ = listener.accept()
        request, files, *_ = socket.recv_fds(connection, REQUEST_BYTES, 2)
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (child := os.fork()) == 0:
                connection.close()
                return _become(json.loads(request), files)
            _, status = os.waitpid(child, 0)
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
        for descriptor in (connection.detach(), *files):
            os.close(descriptor)


def _become(request: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Take over the caller's environment, folder and files."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((null, *files)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    return request


def _end_with_caller() -> None:
    """End when standard input does, which the caller holds, whatever becomes of it."""
    if os.fork() == 0:
        parent = os.getppid()
        os.close(1)
        os.read(0, 1)
        os.kill(parent, signal.SIGTERM)
        os._exit(0)


if __name__ == "__main__":
    for module in pkgutil.walk_packages(imagebuilder.__path__, "imagebuilder."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(sys.argv[1])
    server.listen(64)
    _end_with_caller()
    os.write(1, b"ready\n")
    wanted = _serve(server)
    sys.argv = ["rpi-image", *wanted["arguments"]]
    importlib.import_module("imagebuilder.cli.main").main()
