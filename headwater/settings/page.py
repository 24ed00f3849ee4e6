"""Settings of a node's page; they live here because settings lie below the dashboard in the import order."""

from __future__ import annotations

from typing import Annotated

import msgspec


class PageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page, its API, `/metrics`, `/healthz` and `/readyz` of one node."""

    listen: str = "127.0.0.1:8080"
    """`host:port`. Off loopback every request but the health checks needs the token."""
    token_file: str = ""
    """Where the token is kept (0600); made at the first start off loopback. Empty: `<data_dir>/node/page-token`."""
    history_s: int = 900
    """Seconds of readings that the charts hold."""
    devices_max: int = 1000
    """Devices in the table; the ones heard longest ago leave first."""
    history_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 256 << 20
    """What months of window results may take on the disk; 0: none are kept."""
    series_max: int = 400
    """Charted (device, measurement) pairs; devices past it are listed without a chart."""
