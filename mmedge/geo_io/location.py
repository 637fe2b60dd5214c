"""Where a file lies: a path on this machine, or a URL that a person gave. URLs are shown without what may be secret."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import rasterio

from mmedge.errors import UsageError

# What GDAL is told before it opens a URL. A variable of the same name in the environment goes before.
OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # ask for the file alone, not for its folder and side-cars
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # seconds
    "GDAL_HTTP_TIMEOUT": "30",  # seconds for one request, which is at most a few MiB: what ends a stall
    "GDAL_HTTP_MAX_RETRY": "4",  # of 429, 500, 502, 503, 504, time-outs and resets
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, doubled each time
    "CPL_VSIL_CURL_CACHE_SIZE": str(32 << 20),  # bytes of downloaded ranges kept, for all files together
}
SCHEMES = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?:[^\s/?#@`'\"]*@)?(?P<rest>[^\s?#`'\"]*)(?P<query>[?#][^\s`'\"]*)?", re.I
)
_LOGGERS = ("rasterio", *(f"rasterio.{name}" for name in ("env", "_base", "_env", "_err", "_io", "_path", "session")))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A raster behind an http, https or s3 URL.

    Prints without user, password and query string, which may hold credentials; a query is shown as a part of its hash,
    so that two files which differ in it alone have two names.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name or urlsplit(self.url).hostname or "remote"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def vsi(self) -> str:
        """The path under which GDAL opens it. Holds what the URL holds: not to be shown."""
        parts = urlsplit(self.url)
        if parts.scheme == "s3":
            return f"/vsis3/{parts.netloc}{parts.path}"
        return SCHEMES[parts.scheme.lower()] + self.url

    @property
    def address(self) -> str:
        """The URL without anything that may be secret."""
        return without_secrets(self.url).removesuffix("?...")

    def __str__(self) -> str:
        query = urlsplit(self.url).query
        return self.address + (f"?...{hashlib.sha256(query.encode()).hexdigest()[:8]}" if query else "")


Location = Path | RemoteFile


def locate(text: str | Location) -> Location:
    """What a person typed as a place: a path, a `file://` URL, or an http, https or s3 URL. Raises UsageError."""
    if not isinstance(text, str):
        return text
    match = _SCHEME.match(text)
    if text.startswith("/vsi"):
        raise UsageError(f"`{without_secrets(text)}` is a path of GDAL's own", hint="give the URL itself: https://...")
    if match is None:
        return Path(text)
    scheme = match[1].lower()
    if scheme == "file":
        return Path(unquote(urlsplit(text).path))
    if scheme not in SCHEMES or not urlsplit(text).hostname:
        raise UsageError(
            f"`{without_secrets(text)}`: mmedge reads {', '.join(SCHEMES)} URLs", hint="download the file first"
        )
    return RemoteFile(text)


def without_secrets(text: str) -> str:
    """A text in which every URL has lost its user, password, query string and fragment."""
    return _URL.sub(lambda m: m["scheme"] + m["rest"] + ("?..." if m["query"] else ""), text)


class _NoSecrets(logging.Filter):
    """GDAL's messages, which rasterio logs, name the whole URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


_quiet = _NoSecrets()
_opening = threading.Lock()


@contextmanager
def remote_settings() -> Iterator[None]:
    """GDAL's settings while a URL is opened; the handle keeps them. One at a time: they are the whole process's."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_quiet)  # adding it again changes nothing
    with _opening, rasterio.Env(**{key: value for key, value in OPTIONS.items() if key not in os.environ}):
        yield
