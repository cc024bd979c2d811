"""What a pretraining run needs, computed from its settings: nothing is built, and torch is not imported.

:mod:`~farl_lightning.planning.workload` reads settings, :mod:`~farl_lightning.planning.arithmetic` counts parameters,
cost. ``docs/scale.md`` has every formula in words.
"""

from farl_lightning.planning.arithmetic import (
    activation_bytes,
    collectives,
    forward_flops,
    parameter_units,
    step_flops,
)
from farl_lightning.planning.estimate import Assumptions, Cluster, Plan, make_plan, memory_bytes
from farl_lightning.planning.workload import Tower, Workload, read_workload

__all__ = [
    "Assumptions",
    "Cluster",
    "Plan",
    "Tower",
    "Workload",
    "activation_bytes",
    "collectives",
    "forward_flops",
    "make_plan",
    "memory_bytes",
    "parameter_units",
    "read_workload",
    "step_flops",
]
