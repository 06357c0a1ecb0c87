"""GStreamer's RTSP server on loopback, in a process of its own.

Run as a script it becomes the server: ``rtsp_server.py LIBRARIES VIDEO PORT``; it prints its port.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_void_p
from pathlib import Path
from typing import Any

Running = tuple[str, subprocess.Popen[str]]


@contextmanager
def rtsp_server(installed: Path, video: Path, folder: Path, port: int = 0) -> Iterator[Running]:
    """The address of a server that shows an H.264 MP4 file to each client from its beginning, and its process."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(installed / "lib"),
        "GST_PLUGIN_SYSTEM_PATH": str(installed / "plugins"),
        "GST_PLUGIN_PATH": "",
        "GST_REGISTRY": str(folder / "registry.bin"),
        "GST_REGISTRY_FORK": "no",
    }
    command = [sys.executable, __file__, str(installed / "lib"), str(video), str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"rtsp://127.0.0.1:{int(process.stdout.readline())}/live", process
    finally:
        process.kill()
        process.wait()


class _Library:
    """Calls C functions by name: bytes are strings, int is int, all else a pointer."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)

    def __call__(self, name: str, *arguments: Any, returns: Any = None) -> Any:
        function = getattr(self._library, name)
        kinds: dict[type, Any] = {bytes: c_char_p, int: c_int}
        function.restype, function.argtypes = returns, [kinds.get(type(a), c_void_p) for a in arguments]
        return function(*arguments)


def main(libraries: Path, video: str, port: str) -> None:
    """Serve until killed."""
    glib = _Library(libraries / "libglib-2.0.so.0")
    gst = _Library(libraries / "libgstreamer-1.0.so.0")
    rtsp = _Library(libraries / "libgstrtspserver-1.0.so.0")
    gst("gst_init", None, None)
    server = c_void_p(rtsp("gst_rtsp_server_new", returns=c_void_p))
    rtsp("gst_rtsp_server_set_address", server, b"127.0.0.1")
    rtsp("gst_rtsp_server_set_service", server, port.encode())
    mounts = c_void_p(rtsp("gst_rtsp_server_get_mount_points", server, returns=c_void_p))
    factory = c_void_p(rtsp("gst_rtsp_media_factory_new", returns=c_void_p))
    launch = f"( filesrc location={video} ! qtdemux ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
    rtsp("gst_rtsp_media_factory_set_launch", factory, launch.encode())
    rtsp("gst_rtsp_mount_points_add_factory", mounts, b"/live", factory)
    rtsp("gst_rtsp_server_attach", server, None, returns=c_int)
    sys.stdout.write(f"{rtsp('gst_rtsp_server_get_bound_port', server, returns=c_int)}\n")
    sys.stdout.flush()
    glib("g_main_loop_run", c_void_p(glib("g_main_loop_new", None, 0, returns=c_void_p)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
