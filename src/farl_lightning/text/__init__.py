"""Text: captions cleaned and cut into tokens, names of groups and their order, prompts."""

from farl_lightning.text.captions import Tokenizer, clean_caption
from farl_lightning.text.names import bin_name, natural

__all__ = ["Tokenizer", "bin_name", "clean_caption", "natural"]
