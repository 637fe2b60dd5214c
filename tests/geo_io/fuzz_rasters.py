"""Open and read damaged copies of rasters in little memory: `python fuzz_rasters.py FOLDER SEEDS FILE...`.

Prints one line a copy: its outcome, the file, the damage. Anything but a read or an error of ours ends the process.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from mmedge.errors import MMEdgeError
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.reader import RasterReader
from mmedge.grid import Window

MEMORY = 3 << 30  # of addresses: imports and GDAL's threads take 1.5 GiB of them
SLOWEST_S = 20.0


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A copy that is cut off, has some bytes changed, a run of bytes overwritten, or its header shuffled."""
    kind = str(rng.choice(["cut", "flip", "run", "header"]))
    if kind == "cut":
        return kind, data[: int(rng.integers(0, len(data)))]
    out = bytearray(data)
    if kind == "run":
        start, length = int(rng.integers(0, len(out))), int(rng.integers(1, 4096))
        out[start : start + length] = rng.bytes(len(out[start : start + length]))
        return kind, bytes(out)
    reach = min(len(out), 1024) if kind == "header" else len(out)
    for at in rng.integers(0, reach, int(rng.integers(1, 12))):
        out[int(at)] = int(rng.integers(0, 256))
    return kind, bytes(out)


def outcome(path: Path) -> str:
    """`read` or the name of our error; everything else is raised."""
    try:
        file = inspect_raster(path)
        reader = RasterReader(file.path, file.bands[:4], shared=bool(file.strip_bytes))
        try:
            for row, col in {(0, 0), (file.grid.rows // 2, file.grid.cols // 2)}:
                window = Window(row, col, 300, 300).intersect(file.grid.window)
                data, valid = reader.read(window)
                if data.shape != (len(file.bands[:4]), *window.shape) or valid.shape != window.shape:
                    raise ValueError(f"shape {data.shape} for {window}")
        finally:
            reader.close()
    except MMEdgeError as err:
        if path.name not in str(err) or not err.hint:
            raise ValueError(f"no file or no hint in: {err}") from err
        return type(err).__name__
    return "read"


def main() -> None:
    folder, seeds, files = Path(sys.argv[1]), int(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for file in files:
        data = file.read_bytes()
        for seed in range(seeds):
            kind, copy = damaged(data, np.random.default_rng([seed, len(data)]))
            path = folder / f"{seed}_{file.name}"
            path.write_bytes(copy)
            start = time.monotonic()
            sys.stdout.write(f"{outcome(path)} {file.name} {kind} {seed}\n")
            if time.monotonic() - start > SLOWEST_S:
                raise TimeoutError(f"{path} took {time.monotonic() - start:.0f} s")
            os.unlink(path)


if __name__ == "__main__":
    main()
