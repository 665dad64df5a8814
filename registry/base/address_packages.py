"""Packages that fsspec needs for addresses of other file systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ADDRESS_PACKAGES: Final[Mapping[str, str]] = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "oss": "ossfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
"""What an address needs beside fsspec, as pip names it, by the address' scheme."""
