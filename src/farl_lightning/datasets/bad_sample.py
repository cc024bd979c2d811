"""Why a sample was skipped: the reasons, by the names under which they are counted and reported."""

from __future__ import annotations

from farl_lightning.errors import BadSample as BadSample
from farl_lightning.transforms.decode import BROKEN_IMAGE as BROKEN_IMAGE
from farl_lightning.transforms.decode import HUGE_IMAGE as HUGE_IMAGE
from farl_lightning.transforms.decode import NOT_AN_IMAGE as NOT_AN_IMAGE
from farl_lightning.transforms.decode import SMALL_IMAGE as SMALL_IMAGE

# the picture: what the decoder says (imported above), and
MISSING_IMAGE = "missing_image"
"""A sample without an image file."""

# the labels of dense tasks
MISSING_ANNOTATION = "missing_annotation"
"""A picture without the label map, the landmarks or the box that its dataset promises."""
BROKEN_ANNOTATION = "broken_annotation"
"""An annotation that cannot be read, or with another number of values than its dataset has."""
UNKNOWN_LABEL = "unknown_label"
"""A label map with ids that its dataset does not have."""
MASK_SIZE = "mask_size"
"""A label map of another size than its picture."""
BAD_LANDMARKS = "bad_landmarks"
"""Landmarks that are not finite."""
NO_CROP = "no_crop"
"""No crop can be cut: coincident points, a box without area, a face outside of its picture."""

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
