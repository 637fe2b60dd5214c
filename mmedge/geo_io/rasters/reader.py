"""Windowed, thread-safe reads of one raster file: scaled values and their validity."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from mmedge.errors import ReadError
from mmedge.geo_io.location import Location, RemoteFile, patiently, without_secrets
from mmedge.geo_io.rasters.file import Convert, RasterBand
from mmedge.geo_io.rasters.header import open_dataset
from mmedge.geo_io.sar import saturated
from mmedge.grid import Window
from mmedge.tile import Data, Valid


class RasterReader:
    """Windowed reads of some bands of one file. Safe to call from many threads: each has a handle of its own.

    The threads share one handle of a `shared` file and take turns: GDAL keeps unpacked blocks for each handle, and a
    strip lies under every tile of a row, a block under its neighbours. Complex numbers are read as their amplitude |z|.
    `convert` is the last step of every read.
    """

    def __init__(
        self, path: Location, bands: tuple[RasterBand, ...], convert: Convert | None = None, *, shared: bool = False
    ) -> None:
        self.path = path
        self._turn: AbstractContextManager[object] = threading.Lock() if shared else nullcontext()
        self._shared = shared
        self._convert = convert
        self._fill = [band.fill for band in bands]
        self._indexes = [band.index for band in bands]
        self._scale = np.array([band.scale for band in bands], np.float32)[:, None, None]
        self._offset = np.array([band.offset for band in bands], np.float32)[:, None, None]
        self._scaled, self._shifted = bool((self._scale != 1).any()), bool((self._offset != 0).any())
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        self._known: tuple[list[tuple[Any, ...]], list[int], list[int]] | None = None

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Scaled values (bands, rows, cols) float32 and valid (rows, cols) of a window inside the file.

        A pixel is valid where every band is: finite, not nodata (compared before scaling), not masked, alpha > 0.
        """
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            with self._turn:
                raw, valid = patiently(self.path, lambda: self._raw(where))
        except RasterioError as err:
            cause = without_secrets(str(err.__cause__ or err))
            raise ReadError(
                f"cannot read `{self.path}` at rows {window.row}-{window.row + window.height}, "
                f"columns {window.col}-{window.col + window.width}: {cause}",
                hint="the file is damaged or truncated: copy it again"
                if isinstance(self.path, Path)
                else "the network or the server failed: try again, or download the file first",
            ) from None
        data = self._to_units(raw)
        return self._convert(data, valid, window) if self._convert else (data, valid)

    def _raw(self, where: RasterioWindow) -> tuple[npt.NDArray[Any], Valid]:
        ds = self._dataset()
        try:
            raw = ds.read(self._indexes, window=where)
            return raw, self._valid(ds, raw, where)
        except RasterioError:
            if isinstance(self.path, RemoteFile):
                self._forget(ds)
            raise

    def _forget(self, ds: Any) -> None:
        """Close a handle for good: it may have kept a part of what it was to read."""
        with self._lock:
            self._handles.remove(ds)
        ds.close()

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def _dataset(self) -> Any:
        ds = self._handles[0] if self._shared and self._handles else getattr(self._local, "ds", None)
        if ds is None or ds.closed:
            ds = self._local.ds = open_dataset(self.path)
            with self._lock:
                self._handles.append(ds)
        return ds

    def _to_units(self, raw: npt.NDArray[Any]) -> Data:
        values = np.abs(raw) if raw.dtype.kind == "c" else raw
        if not self._scaled and not self._shifted:
            return values.astype(np.float32, copy=False)
        # In one pass, to the bits that a conversion and a product of their own give.
        data: Data = np.multiply(values, self._scale, dtype=np.float32, casting="unsafe")
        if self._shifted:
            data += self._offset
        return data

    def _valid(self, ds: Any, raw: npt.NDArray[Any], where: RasterioWindow) -> Valid:
        nodata, masked, alpha = self._marks(ds)
        usable: list[Valid] = []
        if raw.dtype.kind == "c":
            usable += [np.isfinite(values) & ~saturated(values) for values in raw]
        # Most windows hold nothing invalid, and their extremes say so in half the time. NaN is an extreme of its own.
        low, high = _extremes(raw, nodata)
        clean = bool(np.isfinite(low) and np.isfinite(high))
        if raw.dtype.kind == "f" and not clean:
            usable += [np.isfinite(values) for values in raw]
        for values, bad in zip(raw, nodata, strict=True):
            usable += [values != value for value in bad if not clean or low <= value <= high]
        usable += [ds.read_masks(index, window=where) != 0 for index in masked]
        usable += [ds.read(index, window=where) != 0 for index in alpha]
        if not usable:
            return np.ones(raw.shape[1:], bool)
        for mask in usable[1:]:
            usable[0] &= mask
        return usable[0]

    def _marks(self, ds: Any) -> tuple[list[tuple[Any, ...]], list[int], list[int]]:
        """Values that are invalid, band by band, the bands to read a mask of, and those that are a mask: GDAL takes
        alpha for one in files of two or four bands without nodata alone. Asked once: it takes as long as a read does.
        """
        if self._known is None:
            kinds, nodata = ds.mask_flag_enums, ds.nodatavals
            masked = [index for index in self._indexes if MaskFlags.per_dataset in kinds[index - 1]]
            bad = [
                (*fill, *_nodata(nodata[index - 1], ds.dtypes[index - 1]))
                for index, fill in zip(self._indexes, self._fill, strict=True)
            ]
            alpha = [i for i, kind in zip(ds.indexes, ds.colorinterp, strict=True) if kind == ColorInterp.alpha]
            # A mask of the data set is that of each of its bands, and alpha where GDAL takes it for one.
            self._known = bad, masked[:1], [] if masked else alpha
        return self._known


def _extremes(raw: npt.NDArray[Any], nodata: list[tuple[Any, ...]]) -> tuple[Any, Any]:
    """Lowest and highest value; NaN where there are none. Integers above every nodata value need no highest."""
    if raw.dtype.kind == "c":
        return np.nan, np.nan
    low = raw.min()
    if raw.dtype.kind in "iu" and all(value < low for bad in nodata for value in bad):
        return low, low
    return low, raw.max()


def _nodata(value: float | None, dtype: str) -> tuple[Any, ...]:
    """In the file's type: -3.4e38 is stored as another double than it is read back as. NaN is never finite anyway, and
    what the type cannot hold, such as -9999 in bytes, is no value of any pixel.
    """
    kind = np.dtype("complex64" if dtype == "complex_int16" else dtype)
    if value is None or np.isnan(value):
        return ()
    if kind.kind in "iu" and not (np.iinfo(kind).min <= value <= np.iinfo(kind).max and value == int(value)):
        return ()
    return (np.array(value).astype(kind),)
