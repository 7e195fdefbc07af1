"""Open3D, imported when it is needed: it takes seconds, and it wants a USB library that few machines have."""

import ctypes
from types import ModuleType

from scaffoldlab.errors import ScaffoldError


def open3d() -> ModuleType:
    """The module ``open3d``.

    Raises:
        ScaffoldError: It is not installed.
    """
    try:
        import libusb_package

        # Its camera drivers are linked to libusb-1.0.so.0; a library that is already loaded is not searched for.
        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        import open3d
    except ImportError as error:
        raise ScaffoldError(f"scan: {error}. Install the scanner with `pip install scaffoldlab[scan]`.") from error
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d
