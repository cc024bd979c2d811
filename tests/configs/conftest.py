"""The fixtures of the command line."""

from tests.cli.conftest import here, run  # noqa: F401
