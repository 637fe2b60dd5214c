"""mmedge: georeferenced maps from multi-sensor scenes, some of whose sensors failed."""

from __future__ import annotations

__version__ = "0.1.0"
