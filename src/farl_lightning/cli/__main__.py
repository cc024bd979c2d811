"""``python -m farl_lightning.cli`` is ``farl-lightning``."""

from __future__ import annotations

import sys

from farl_lightning.cli import main

sys.exit(main())
