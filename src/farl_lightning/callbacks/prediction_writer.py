"""What ``predict`` found of faces, as files: masks, overlays, landmarks, and one row per face in a table."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from farl_lightning.callbacks.face_files import file_stem, save_json, save_labels, save_pts
from farl_lightning.callbacks.reference_table import write_csv
from farl_lightning.callbacks.run import announce, is_trial, run_folder
from farl_lightning.errors import ConfigError, DataError, require
from farl_lightning.text import natural
from farl_lightning.visualization import class_palette, overlay_landmarks, overlay_mask, save_png

Row = dict[str, Any]


class Face(NamedTuple):
    """What is known of one face."""

    key: str
    labels: npt.NDArray[np.uint8] | None
    landmarks: npt.NDArray[np.float32] | None
    confidence: npt.NDArray[np.float32] | None
    image: npt.NDArray[np.uint8] | None
    facts: Row


class PredictionWriter(BasePredictionWriter):
    """Write ``predictions/`` into the run's folder: what a task of faces predicts, in the pixels of each photograph.

    ``masks/<key>.png``: label ids as an indexed PNG with the colours of the classes. ``overlays/<key>.png``: the
    photograph with classes tinted or landmarks dotted, where the data bring ``source_image``. ``landmarks/<key>.json``
    and ``.pts``: the points; JSON counts pixels from 0, iBUG's ``.pts`` from 1. ``faces.csv``: one row per face, and
    one with its reason for each photograph that could not be used; ``faces.parquet`` beside it if pyarrow is installed.

    Each process writes the files of its own faces; the first joins the rows, so all must share the folder. A trial
    (``fast_dev_run``) leaves nothing.

    Args:
        masks: Whether label maps are written.
        overlays: Whether overlays are written.
        landmarks: Whether landmarks are written.
        parquet: Whether there is a Parquet table, too; None means whenever pyarrow is installed.

    Raises:
        ConfigError: If nothing at all is to be written.
        MissingDependencyError: If Parquet is asked for without pyarrow.
    """

    def __init__(
        self, masks: bool = True, overlays: bool = True, landmarks: bool = True, parquet: bool | None = None
    ) -> None:
        super().__init__(write_interval="batch")
        if not (masks or overlays or landmarks):
            raise ConfigError("PredictionWriter(masks=False, overlays=False, landmarks=False) would write nothing")
        if parquet:
            require("pyarrow", "parquet")
        self.masks, self.overlays, self.landmarks = masks, overlays, landmarks
        self.parquet = importlib.util.find_spec("pyarrow") is not None if parquet is None else parquet
        self._folder = Path()
        self._rows: list[Row] = []
        self._names: tuple[str, ...] = ()

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run, and start anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            self._folder, self._rows = run_folder(trainer) / "predictions", []

    @override
    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the files of a batch, and keep its rows."""
        if is_trial(trainer) or not isinstance(batch, Mapping):
            return
        for drop in batch.get("dropped", ()):
            self._rows.append({"key": drop["key"], "problem": f"{drop['reason']}: {drop['detail']}"})
        spec = getattr(pl_module, "spec", None)
        for face in found_faces(prediction, batch):
            self._names = class_names(face, self._names or (spec.classes if spec is not None else ()))
            self._rows.append(self._write(face))

    def _write(self, face: Face) -> Row:
        """Write the files of one face; a file that cannot be written is told in its row."""
        row: Row = {"key": face.key, **face.facts, **summary(face, self._names)}
        try:
            for kind, path in self._write_files(face):
                row[kind] = path.relative_to(self._folder).as_posix()
        except OSError as error:
            row["problem"] = f"not_written: {error}"
        return row

    def _write_files(self, face: Face) -> Iterator[tuple[str, Path]]:
        """Write each file, and say which it is."""
        stem = file_stem(face.key)
        if self.masks and face.labels is not None:
            path = self._folder / "masks" / f"{stem}.png"
            save_labels(face.labels, path, class_palette(self._names).tolist())
            yield "mask", path
        if self.landmarks and face.landmarks is not None:
            path = self._folder / "landmarks" / f"{stem}.json"
            save_json(face.landmarks, face.confidence, face.key, path)
            yield "landmarks", path
            path = path.with_name(f"{stem.name}.pts")
            save_pts(face.landmarks, path)
            yield "pts", path
        if self.overlays and face.image is not None:
            path = self._folder / "overlays" / f"{stem}.png"
            save_png(draw(face, self._names), path)
            yield "overlay", path

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the rows of this process; join those of all on the first, and say what there is."""
        if is_trial(trainer):
            if trainer.is_global_zero:
                announce(trainer, pl_module, "\na trial (fast_dev_run): nothing was written")
            return
        parts = [self._folder / f"faces.part-{rank:05d}.csv" for rank in range(trainer.world_size)]
        write_csv(parts[trainer.global_rank], self._rows or [{"key": ""}])
        trainer.strategy.barrier("faces")
        if trainer.is_global_zero:
            rows = sorted((row for part in parts for row in read_rows(part)), key=lambda row: natural(row["key"]))
            for part in parts:
                part.unlink()
            announce(trainer, pl_module, "\n".join(self._finish(rows)))

    def _finish(self, rows: list[Row]) -> list[str]:
        """Write the tables; return what is said of them."""
        bad = [row for row in rows if row.get("problem")]
        table = self._folder / "faces.csv"
        write_csv(table, rows or [{"key": ""}])
        if self.parquet and rows:
            write_parquet(self._folder / "faces.parquet", rows)
        lines = ["", f"predictions  {self._folder}", f"             {len(rows) - len(bad)} faces, listed in {table}"]
        if bad:
            lines.append(
                f"left out     {len(bad)}: " + "; ".join(f"{row['key']} ({row['problem']})" for row in bad[:3])
            )
            lines[-1] += ", ..." if len(bad) > 3 else ""
        return lines


def found_faces(prediction: Any, batch: Mapping[str, Any]) -> Iterator[Face]:
    """Yield the faces of a batch that count.

    Args:
        prediction: A :class:`~farl_lightning.types.FacePrediction`; anything else has no faces.
        batch: Its batch; ``source_image``, ``path``, ``score``, ``box`` and ``size`` are used where they are there.
    """
    if not isinstance(prediction, Mapping) or not {"labels", "landmarks", "answers"} & prediction.keys():
        return
    valid = prediction.get("valid")
    for row, key in enumerate(prediction["key"]):
        if valid is not None and not bool(valid[row]):
            continue
        given = {
            name: to_numpy(prediction[name][row]) if name in prediction else None
            for name in ("labels", "landmarks", "confidence")
        }
        image = to_numpy(batch["source_image"][row]) if "source_image" in batch else None
        facts = known_facts(batch, row)
        facts |= {name: round(float(values[row]), 4) for name, values in prediction.get("answers", {}).items()}
        yield Face(key, image=image, facts=facts, **given)


def known_facts(batch: Mapping[str, Any], row: int) -> Row:
    """Return what the data say of one face.

    Args:
        batch: The batch.
        row: Row of the face.
    """
    facts: Row = {}
    if "path" in batch:
        facts["photo"] = batch["path"][row]
    if "size" in batch:
        facts["height"], facts["width"] = batch["size"][row].tolist()
    if "box" in batch:
        box = batch["box"][row].tolist()
        facts |= {name: round(side, 2) for name, side in zip(("left", "top", "right", "bottom"), box, strict=True)}
    if "score" in batch:
        facts["score"] = round(float(batch["score"][row]), 4)
    return facts


def summary(face: Face, names: Sequence[str]) -> Row:
    """Return what was found of one face in a few numbers: pixels of each class, or confidence of the landmarks.

    Args:
        face: The face.
        names: Names of the classes.
    """
    row: Row = {}
    if face.labels is not None:
        counts = np.bincount(face.labels.ravel(), minlength=len(names)).tolist()
        row |= {f"pixels_{name}": count for name, count in zip(names, counts, strict=False)}
    if face.confidence is not None:
        row["confidence"] = round(float(face.confidence.mean()), 4)
    return row


def class_names(face: Face, names: Sequence[str]) -> tuple[str, ...]:
    """Return a name for every label of a face; numbers for those without.

    Args:
        face: The face.
        names: The names that are known.
    """
    count = 0 if face.labels is None else int(face.labels.max(initial=0)) + 1
    return (*names, *(str(label) for label in range(len(names), count)))


def draw(face: Face, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the photograph of a face with what was found drawn over it.

    Args:
        face: With ``image``.
        names: Names of the classes.

    Returns:
        (H, W, 3) uint8.
    """
    picture: Any = face.image
    if face.labels is not None:
        picture = overlay_mask(picture, face.labels, class_palette(names))
    if face.landmarks is not None:
        picture = overlay_landmarks(picture, face.landmarks)
    drawn: npt.NDArray[np.uint8] = picture
    return drawn


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """Return a tensor of any device, or an array, as an array."""
    array: npt.NDArray[Any] = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    return array


def read_rows(path: Path) -> list[Row]:
    """Read the rows of one process.

    Args:
        path: Its part of the table.

    Raises:
        DataError: If it is not there.
    """
    if not path.is_file():
        raise DataError(
            f"'{path}', the part of another process, is not there: predict with several machines needs a run folder "
            "(--trainer.default_root_dir) on a file system that all of them share"
        )
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["key"]]


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a Parquet file, with numbers where a column has nothing else.

    Args:
        path: The file.
        rows: As :func:`read_rows` returns them; empty cells are missing values.
    """
    pyarrow: Any = require("pyarrow", "parquet")
    parquet: Any = require("pyarrow.parquet", "parquet")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _typed([row.get(name) or None for row in rows]) for name in names}
    parquet.write_table(pyarrow.table(columns), path)


def _typed(cells: list[str | None]) -> list[Any]:
    """Turn the cells of a column into numbers if all of them are."""
    try:
        return [None if cell is None else float(cell) for cell in cells]
    except ValueError:
        return list(cells)
