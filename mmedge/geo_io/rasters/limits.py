"""What a file's header may claim, checked before anything is allocated for its pixels, and how long it may take to say.

Reads are by window, so a file that unpacks to more than the memory is no danger, but a block is unpacked whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import numpy as np

from mmedge.errors import SceneError

# The Earth at 20 m; a Sentinel-2 tile has 10,980.
MAX_SIDE_PX = 2_000_000
# The Earth at 30 m has 8e11.
MAX_PIXELS = 10**12
# Field spectrometers have 2,151 bands.
MAX_BANDS = 4096
# One strip or tile, unpacked, all bands of it where they are interleaved by pixel. A Sentinel-1 GRD's strip has 51 kB.
MAX_BLOCK_BYTES = 256 << 20
# A header is read in milliseconds on a disk, and within seconds over a network. URLs have HTTP time-outs and retries
# of their own, which end sooner.
HEADER_TIMEOUT_S, REMOTE_HEADER_TIMEOUT_S = 30.0, 120.0

Result = TypeVar("Result")


def check_header(ds: Any, name: str) -> None:
    """Raise SceneError where a rasterio dataset claims more than the limits."""
    facts = (
        ("pixels a side", max(ds.height, ds.width), MAX_SIDE_PX),
        ("pixels", ds.height * ds.width, MAX_PIXELS),
        ("bands", ds.count, MAX_BANDS),
        ("bytes a block", block_bytes(ds), MAX_BLOCK_BYTES),
    )
    for what, claimed, limit in facts:
        if claimed > limit:
            raise SceneError(
                f"`{name}` claims {claimed} {what}, mmedge takes up to {limit}",
                hint="if the file is sound, cut it up: `gdal_translate -co TILED=YES -srcwin 0 0 20000 20000 IN OUT`",
            )


def block_bytes(ds: Any) -> int:
    """Bytes of the largest block once it is unpacked."""
    together = ds.count if ds.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" else 1
    sizes = (rows * cols * pixel_bytes(dtype) for (rows, cols), dtype in zip(ds.block_shapes, ds.dtypes, strict=True))
    return together * max(sizes, default=0)


def pixel_bytes(dtype: str) -> int:
    """Bytes of one value; rasterio's `complex_int16` is not a type of numpy."""
    return 4 if dtype == "complex_int16" else int(np.dtype(dtype).itemsize)


def within(seconds: float, work: Callable[[], Result], name: str) -> Result:
    """The result of `work`, done by a thread of its own; SceneError where it takes longer.

    GDAL cannot be interrupted, but it lets other threads run: the one that hangs is left behind, holds nothing that is
    waited for, and ends with the process.
    """
    done: Future[Result] = Future()
    threading.Thread(target=_complete, args=(done, work), daemon=True, name=f"header of {name}").start()
    try:
        return done.result(seconds)
    except FutureTimeout:
        if done.done():
            raise
        raise SceneError(
            f"`{name}` did not show its header within {seconds:g} s",
            hint="copy it to a local disk and try again; if it still hangs, the file is damaged",
        ) from None


def _complete(done: Future[Result], work: Callable[[], Result]) -> None:
    try:
        done.set_result(work())
    except BaseException as err:  # noqa: BLE001 - handed on to whoever waits for the result
        done.set_exception(err)
