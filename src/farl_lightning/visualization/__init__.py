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

__all__ = ["RankedCaption", "caption_ranking", "contact_sheet", "hide_patches", "image_grid", "save_png", "to_pixels"]
