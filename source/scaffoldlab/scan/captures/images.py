"""Image and depth files: headers first, pixels when they are asked for; png, jpg, npy, EXR, and Record3D's LZFSE."""

import contextlib
import importlib
import zipfile
import zlib
from collections.abc import Collection, Iterator
from types import ModuleType

import numpy as np
from PIL import Image

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.archives import AnyPath

BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""What Pillow, NumPy and archives raise for a file that is cut off or of another kind."""


@contextlib.contextmanager
def open_image(path: AnyPath) -> Iterator[Image.Image]:
    """An image, whose pixels are not read yet.

    Raises:
        ScaffoldError: It is no image, or turns out to be cut off while it is used.
    """
    try:
        with path.open("rb") as file, Image.open(file) as picture:
            yield picture
    except BROKEN as error:
        raise unreadable(path, error) from None


def image_size(path: AnyPath) -> tuple[int, int]:
    """Width and height of an image [px], from its header.

    Raises:
        ScaffoldError: It is no image.
    """
    with open_image(path) as picture:
        return picture.size


def depth_header(path: AnyPath) -> tuple[tuple[int, int], str]:
    """Width and height of a depth image [px] and its kind of numbers, ``u`` for whole ones or ``f``, from its header.

    Raises:
        ScaffoldError: It is no depth image.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            array = np.load(str(path), mmap_mode="r", allow_pickle=False)
            if array.ndim == 2 and array.dtype.kind in "uif" and array.dtype.itemsize > 1:
                return array.shape[::-1], "f" if array.dtype.kind == "f" else "u"
            got = f"an array of shape {array.shape}, {array.dtype}"
        elif suffix == ".exr":
            with _open_exr(path, header_only=True) as file:
                names = [channel.name for channel in file.header()["channels"]]
                low, high = file.header()["dataWindow"]
            if _depth_channel(names):
                return (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)), "f"
            got = f"the channels {', '.join(names)}"
        else:
            with open_image(path) as picture:
                if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                    return picture.size, "f" if picture.mode == "F" else "u"
                got = f"an image of mode {picture.mode}"
    except BROKEN as error:
        raise unreadable(path, error) from None
    raise ScaffoldError(
        f"{path}: got {got}; allowed: one channel of 16 bits, or floats in a .npy or .exr (Z, Y, V or R). A coloured "
        "or 8 bit picture of depth does not hold the depth: export it again as 16 bit PNG."
    )


def read_depth(path: AnyPath, shape: tuple[int, int]) -> np.ndarray:
    """Depth, or the confidence in it, in the file's unit.

    Args:
        path: File of depth, or ``.conf`` of Record3D.
        shape: Height and width that are expected [px]; LZFSE does not say them.

    Raises:
        ScaffoldError: The file is cut off, or holds something else.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            with path.open("rb") as file:
                return np.load(file, allow_pickle=False)
        if suffix == ".exr":
            return _read_exr(path)
        if suffix in (".depth", ".conf"):
            kind = np.dtype("<f4" if suffix == ".depth" else np.uint8)
            size = shape[0] * shape[1] * kind.itemsize
            data = unpack_lzfse(path, size)
            if len(data) != size:
                raise ValueError(f"{len(data)} bytes, where {shape[1]} x {shape[0]} pixels are {size}")
            return np.frombuffer(data, kind).reshape(shape)
    except BROKEN as error:
        raise unreadable(path, error) from None
    with open_image(path) as picture:
        return np.array(picture)


def unpack_lzfse(path: AnyPath, most_bytes: int) -> bytes:
    """What an LZFSE file holds.

    Args:
        path: The file.
        most_bytes: A file that is larger than this and a header is not unpacked: LZFSE never makes data larger.

    Raises:
        ScaffoldError: LZFSE is not installed.
        ValueError: The file is larger, or damaged.
    """
    lzfse = _installed("lzfse")
    with path.open("rb") as file:
        packed = file.read(most_bytes + 1024)
    if len(packed) == most_bytes + 1024:
        raise ValueError(f"more than the {most_bytes} bytes that it should unpack to")
    try:
        return lzfse.decompress(packed)
    except lzfse.error:
        raise ValueError("no LZFSE data, or cut off") from None


def unreadable(path: AnyPath, error: Exception) -> ScaffoldError:
    """The error for an image that is cut off or none at all."""
    return ScaffoldError(f"{path}: not readable as an image ({error}). Capture or copy it again, or delete its frame.")


@contextlib.contextmanager
def _open_exr(path: AnyPath, *, header_only: bool) -> Iterator:
    """An EXR file, an ``OpenEXR.File``; ValueError if it cannot be read."""
    openexr = _installed("OpenEXR")
    try:
        with openexr.File(str(path), separate_channels=True, header_only=header_only) as file:
            yield file
    except (RuntimeError, ValueError):  # its own words are of parts and indices
        raise ValueError("no EXR file, or cut off") from None


def _read_exr(path: AnyPath) -> np.ndarray:
    with _open_exr(path, header_only=False) as file:
        pixels = {name: channel.pixels for name, channel in file.channels().items()}
    name = _depth_channel(pixels)
    if name is None or pixels[name].dtype.kind != "f":
        raise ValueError(f"no channel of floats named Z, Y, V or R among {', '.join(pixels)}")
    if name == "R" and any(not np.array_equal(pixels["R"], pixels.get(c, pixels["R"]), equal_nan=True) for c in "GB"):
        raise ValueError("R, G and B differ: colours, no depth")
    return pixels[name]


def _depth_channel(names: Collection[str]) -> str | None:
    """The channel of an EXR file that holds the depth, None if there is none."""
    others = set(names) - {"A"}
    if "Z" in others:
        return "Z"
    if others == {"R", "G", "B"}:
        return "R"
    return others.pop() if others in ({"Y"}, {"V"}, {"R"}) else None


def _installed(name: str) -> ModuleType:
    """A module that only the scanner needs.

    Raises:
        ScaffoldError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ScaffoldError(f"scan: {error}. Install the scanner with `pip install scaffoldlab[scan]`.") from error
