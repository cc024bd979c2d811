"""``python -m farl_lightning`` is ``farl-lightning``; torchrun starts it as ``-m farl_lightning``."""

from __future__ import annotations

import sys

from farl_lightning.cli import main

sys.exit(main())
