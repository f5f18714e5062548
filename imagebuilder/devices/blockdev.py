"""Open block devices for writing: exclusively, without buffers, checked after opening."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.devices import access, inventory, macos
from imagebuilder.devices.inventory import load_device
from imagebuilder.devices.safety import may_unmount, mounted_parts, same_device
from imagebuilder.errors import PERMISSION_HINT, ImageError, RefusedError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.devices.device import Device

with contextlib.suppress(ImportError):  # on Windows the module is imported, but no device is opened
    import fcntl

# Requests of include/uapi/linux/fs.h, cdrom.h and loop.h.
_BLKROGET = 0x125E
BLKRRPART = 0x125F
_BLKFLSBUF = 0x1261
_BLKGETSIZE64 = 0x80081272
_BLKGETDISKSEQ = 0x80081280
_CDROMEJECT = 0x5309
_LOOP_SET_DIRECT_IO = 0x4C08
_ON_LINUX = sys.platform.startswith("linux")
_DIRECT = getattr(os, "O_DIRECT", 0)

# udev holds this lock while it probes a new card (systemd, BLOCK_DEVICE_LOCKING).
_LOCK_SECONDS = 5.0


class Buffer:
    """Page-aligned memory, required by O_DIRECT (open(2)); bytes objects cause EINVAL."""

    def __init__(self, size_bytes: int) -> None:
        self._memory = mmap.mmap(-1, size_bytes)
        self.view = memoryview(self._memory)

    def zero(self) -> None:
        """Fill the buffer with zeros."""
        self.view[:] = bytes(len(self.view))


class BlockDevice:
    """An open device. Transfers are unbuffered and complete; methods raise WriteError on failure.

    Offsets and sizes are multiples of the sector size; views are those of a Buffer.
    """

    def __init__(self, path: str, descriptor: int, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self._descriptor = descriptor

    def write(self, offset_bytes: int, view: memoryview) -> None:
        """Write all of `view`; return when the device has received it."""
        with self._named("write", offset_bytes):
            done = 0
            while done < len(view):
                done += os.pwritev(self._descriptor, [view[done:]], offset_bytes + done)

    def read(self, offset_bytes: int, view: memoryview) -> None:
        """Fill `view` from the device itself, not from the page cache."""
        with self._named("read", offset_bytes):
            done = 0
            while done < len(view):
                count = os.preadv(self._descriptor, [view[done:]], offset_bytes + done)
                if count == 0:
                    raise OSError(errno.EIO, "unexpected end of device")
                done += count

    def flush(self) -> None:
        """Wait until the device has stored everything, and drop it from the page cache."""
        with self._named("flush", None):
            os.fsync(self._descriptor)
        if _ON_LINUX:
            with suppress(OSError):
                access.request(self._descriptor, _BLKFLSBUF)

    def reread_table(self) -> bool:
        """Make the kernel read the partition table; return False if it does not."""
        if not _ON_LINUX:
            return True
        try:
            access.request(self._descriptor, BLKRRPART)
        except OSError as error:
            return error.errno == errno.EINVAL  # a loop device without partition scan
        return True

    def eject(self) -> bool:
        """Eject the medium; return False if the drive cannot."""
        if not _ON_LINUX:
            return False
        try:
            access.request(self._descriptor, _CDROMEJECT)
        except OSError:
            return False
        return True

    @contextmanager
    def _named(self, deed: str, offset_bytes: int | None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = "" if offset_bytes is None else f" at {offset_bytes}"
            raise WriteError(
                f"{self.path}: {deed}{where} failed: {error.strerror}",
                "check reader and contacts, then try again or use another card",
            ) from error


class DeviceReader:
    """A ReadAt of a device that bypasses the page cache."""

    def __init__(self, device: BlockDevice) -> None:
        self.size_bytes = device.size_bytes
        self._device = device

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `offset_bytes`; fewer only at the end."""
        end = min(offset_bytes + size_bytes, self.size_bytes)
        begin = offset_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if begin >= end:
            return b""
        span = min(-(-(end - begin) // mmap.PAGESIZE) * mmap.PAGESIZE, self.size_bytes - begin)
        buffer = Buffer(span)
        self._device.read(begin, buffer.view)
        return bytes(buffer.view[offset_bytes - begin : end - begin])


@contextmanager
def claim(confirmed: Device) -> Iterator[BlockDevice]:
    """Yield a device opened for writing, after a check that it is still the confirmed one.

    Raise RefusedError if it is in use (O_EXCL or flock), read-only or another medium.
    """
    descriptor = _open(confirmed.path, os.O_RDWR | os.O_EXCL | _DIRECT)
    try:
        _lock(confirmed.path, descriptor)
        _check(confirmed, descriptor)
        with _past_backing_file(confirmed, descriptor):
            yield BlockDevice(confirmed.path, descriptor, confirmed.size_bytes)
    finally:
        os.close(descriptor)


@contextmanager
def open_for_reading(device: Device) -> Iterator[BlockDevice]:
    """Yield a device opened for unbuffered reading. Raise ImageError on failure."""
    try:
        descriptor = _open(device.path, os.O_RDONLY | _DIRECT)
    except RefusedError as error:
        raise ImageError(error.message, error.hint) from error
    try:
        if _ON_LINUX:
            with suppress(OSError):
                access.request(descriptor, _BLKFLSBUF)
        with _past_backing_file(device, descriptor):
            yield BlockDevice(device.path, descriptor, device.size_bytes)
    finally:
        os.close(descriptor)


@contextmanager
def _past_backing_file(device: Device, descriptor: int) -> Iterator[None]:
    """Make a loop device bypass the page cache of its file, which O_DIRECT alone does not.

    Restored at the end of the block. Without effect if the kernel refuses it: the file system of
    the file does not support it or has larger sectors.
    """
    changed = _is_buffered_loop(device) and _set_loop_direct(descriptor, on=True)
    try:
        yield
    finally:
        if changed:
            _set_loop_direct(descriptor, on=False)


def _is_buffered_loop(device: Device) -> bool:
    try:
        state = Path(f"/sys/dev/block/{device.major_minor}/loop/dio").read_text()
    except OSError:
        return False
    return state.strip() == "0"


def _set_loop_direct(descriptor: int, *, on: bool) -> bool:
    try:
        access.request(descriptor, _LOOP_SET_DIRECT_IO, int(on))
    except OSError:
        return False
    return True


def _open(path: str, flags: int) -> int:
    real = path if _ON_LINUX else macos.raw_path(path)
    try:
        return access.open_device(real, flags)
    except OSError as error:
        hints = {
            errno.EBUSY: "unmount it, or close the program that uses it",
            errno.EACCES: PERMISSION_HINT,
            errno.EPERM: PERMISSION_HINT,
            errno.EROFS: "unlock the card's write protection, or use another card",
        }
        reason = "is in use" if error.errno == errno.EBUSY else f"cannot open: {error.strerror}"
        raise RefusedError(
            f"{path} {reason}", hints.get(error.errno or 0, "check reader and card")
        ) from error


def _lock(path: str, descriptor: int) -> None:
    # udev respects this lock, and does not probe the card meanwhile.
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= until:
                raise RefusedError(
                    f"{path} is in use", "close the program that holds its lock"
                ) from error
        time.sleep(0.1)


def _check(confirmed: Device, descriptor: int) -> None:
    now = inventory.load_identity(confirmed.path)
    if not same_device(confirmed, now) or (_ON_LINUX and not _same_open(confirmed, descriptor)):
        raise RefusedError(
            f"{confirmed.path} changed since it was confirmed",
            "check `rpi-image devices` and try again: it is another card or reader now",
        )
    if _ON_LINUX and _ask(descriptor, _BLKROGET, "i"):
        raise RefusedError(
            f"{confirmed.path} is read-only",
            "unlock the card's write protection, or use another card",
        )


def _same_open(confirmed: Device, descriptor: int) -> bool:
    """Return whether the open device is the confirmed one; its path may name another one by now."""
    number = os.fstat(descriptor).st_rdev
    return (
        f"{os.major(number)}:{os.minor(number)}" == confirmed.major_minor
        and _ask(descriptor, _BLKGETSIZE64, "Q") == confirmed.size_bytes
        and _ask(descriptor, _BLKGETDISKSEQ, "Q") in (None, confirmed.sequence)
    )


def _ask(descriptor: int, request: int, form: str) -> int | None:
    """Return a number from an ioctl; None if the kernel does not know the request."""
    answer = bytearray(struct.calcsize(form))
    try:
        fcntl.ioctl(descriptor, request, answer)
    except OSError:
        return None
    number: int = struct.unpack(form, answer)[0]
    return number


def unmounted(device: Device) -> Device:
    """Unmount a card unless it has a file system of this system; return its new state.

    Raise RefusedError if a partition cannot be unmounted.
    """
    if not (mounted_parts(device) and may_unmount(device)):
        return device
    if device.path.startswith("/dev/disk"):
        macos.unmount(device.path)
        return load_device(device.path)
    for part, point in mounted_parts(device):
        done = subprocess.run(["umount", "--", point], capture_output=True, check=False)
        if done.returncode != 0 and not access.unmount(part):
            raise RefusedError(f"cannot unmount {part}", "close what uses it, and try again")
    return load_device(device.path)
