"""Why a sample was skipped: the reasons, by the names under which they are counted and reported."""

from __future__ import annotations

from farl_lightning.types import Drop

# the picture
NOT_AN_IMAGE = "not_an_image"
"""Bytes that no decoder recognises."""
BROKEN_IMAGE = "broken_image"
"""A picture that begins well and cannot be decoded to its end."""
HUGE_IMAGE = "huge_image"
"""More pixels than the limit; refused before anything is decoded."""
SMALL_IMAGE = "small_image"
"""A picture below the minimum side."""
MISSING_IMAGE = "missing_image"
"""A sample without an image file."""

# the caption
MISSING_CAPTION = "missing_caption"
"""A sample without a caption file."""
EMPTY_CAPTION = "empty_caption"
"""A caption of which cleaning leaves nothing."""
CAPTION_NOT_UTF8 = "caption_not_utf8"
"""Caption bytes that are not valid UTF-8."""

# the sample
BROKEN_JSON = "broken_json"
"""Metadata that is not a JSON object although the settings need it."""
DUPLICATE_KEY = "duplicate_key"
"""A key that was already seen in the same shard."""
OVERSIZED_FILE = "oversized_file"
"""A file inside a shard above the size limit; its bytes are never read."""
NO_DETECTION = "no_detection"
"""No entry in the detection table, although the crop policy needs one."""
NO_FACE = "no_face"
"""Detections are there, none of them is large or certain enough."""

# the shard
SHARD_TRUNCATED = "shard_truncated"
"""A shard that ends in the middle; what lies before the end is used."""
SHARD_EMPTY = "shard_empty"
"""A shard of zero bytes, or an archive without files."""
SHARD_MISSING = "shard_missing"
"""A shard that cannot be opened: vanished, forbidden, not reachable."""
SHARD_UNREADABLE = "shard_unreadable"
"""A shard that is no tar archive, or stops being one, or fails while it is read."""

SHARD_REASONS = frozenset({SHARD_TRUNCATED, SHARD_EMPTY, SHARD_MISSING, SHARD_UNREADABLE})
"""Reasons that concern a whole shard; the others concern one sample."""


class BadSample(Exception):
    """A sample that cannot be used. Never ends a run: whoever reads samples counts it and goes on.

    Args:
        reason: One of this module's constants.
        detail: What exactly was wrong, in a few words.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str]]:
        """Pickle by both arguments, so that it crosses process borders."""
        return type(self), (self.reason, self.detail)

    def to_drop(self, key: str) -> Drop:
        """Return the entry of the drop report.

        Args:
            key: Name of the sample or shard.
        """
        return Drop(key=key, reason=self.reason, detail=self.detail[:200])
