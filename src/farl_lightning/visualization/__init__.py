"""Pictures for people: the only room that draws with matplotlib."""

from farl_lightning.visualization.grid import (
    RankedCaption,
    caption_ranking,
    contact_sheet,
    hide_patches,
    image_grid,
    save_png,
    to_pixels,
)
from farl_lightning.visualization.overlay import error_map, overlay_heatmap, overlay_landmarks, overlay_mask
from farl_lightning.visualization.palette import class_palette, colorize
from farl_lightning.visualization.panels import alignment_panel, heatmap_panel, parsing_panel
from farl_lightning.visualization.plots import ced_plot, confusion_picture, roc_plot
from farl_lightning.visualization.subgroups import subgroup_picture

__all__ = [
    "RankedCaption",
    "alignment_panel",
    "caption_ranking",
    "ced_plot",
    "class_palette",
    "colorize",
    "confusion_picture",
    "contact_sheet",
    "error_map",
    "heatmap_panel",
    "hide_patches",
    "image_grid",
    "overlay_heatmap",
    "overlay_landmarks",
    "overlay_mask",
    "parsing_panel",
    "roc_plot",
    "save_png",
    "subgroup_picture",
    "to_pixels",
]
