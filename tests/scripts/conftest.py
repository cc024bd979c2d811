"""The command line, for arguments that a script makes."""

from __future__ import annotations

from tests.cli.conftest import here, run  # noqa: F401
