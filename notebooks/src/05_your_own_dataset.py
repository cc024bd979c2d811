# %% [markdown]
# # Your own dataset
#
# A folder of pictures and a table are enough: which column is what stands in a few lines of YAML, and no code is written.
# Here a small company has photographs of its visitors, a table of who wears glasses and how old they are, and the usual
# faults in both. The pictures are drawn, so that the notebook runs anywhere; with a table of yours the cells stay the same.

# %% tags=["parameters"]
train_count = 1536  # pictures in the table
test_count = 384
steps = 300  # of 32 pictures each

# %%
import csv
import json
from pathlib import Path

import numpy as np
from IPython.display import Image as Shown
from PIL import Image

from farl_lightning import FacePredictor, SyntheticFaces
from farl_lightning.cli import main
from farl_lightning.datasets.synthetic.attributes import CELEBA_ATTRIBUTES
from farl_lightning.visualization import image_grid

# %% [markdown]
# ## Pictures and a table
#
# One row per picture: its path, labels, who is shown, and the five points of the face where somebody knows them. Two rows
# are wrong on purpose: a picture that is not there, and an age that is no number.

# %%
glasses, male = (CELEBA_ATTRIBUTES.index(name) for name in ("Eyeglasses", "Male"))
points = [f"{axis}{number}" for number in range(5) for axis in "xy"]
Path("visitors/photos").mkdir(parents=True, exist_ok=True)
faces = SyntheticFaces(train_count + test_count, image_size=96, seed=5)
rows = []
for number in range(len(faces)):
    face = faces[number]
    file = f"photos/{number:05d}.jpg"
    Image.fromarray(face.image).save(Path("visitors") / file, quality=92)
    row = {"photo": file, "eyewear": "glasses" if face.attributes[glasses] == 1 else "bare", "years": round(face.age)}
    row |= {"gender": "man" if face.attributes[male] == 1 else "woman", "visitor": f"visitor {number}"}
    row |= {"part": "train" if number < train_count else "test"}
    rows.append(row | {name: f"{value:.1f}" for name, value in zip(points, face.five_points.ravel(), strict=True)})
rows[3]["photo"] = "photos/lost.jpg"
rows[5]["years"] = "unkown"
with Path("visitors/visitors.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)

print("\n".join(Path("visitors/visitors.csv").read_text().splitlines()[:3]))
Image.fromarray(image_grid([[faces[number].image for number in range(6)]]))

# %% [markdown]
# ## Everything in YAML
#
# `columns` says what each column is. Labels are classes (listed, renamed, or taken from the table) or numbers. `groups` are
# what results will be split by, `bins` makes groups of a number, `identity` keeps the people of validation out of
# training. Tables may be CSV, TSV, JSON, JSON Lines or Parquet; without a split column, parts are drawn by seed.

# %%
config = f"""
# Who wears glasses? Data: visitors.csv. Hardware: 2 CPU cores.
seed_everything: 0
trainer:
  accelerator: cpu
  devices: 1
  max_steps: {steps}
  val_check_interval: {steps}
  check_val_every_n_epoch: null
  enable_progress_bar: false
  logger: {{class_path: CSVLogger, init_args: {{save_dir: runs, name: glasses}}}}
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {{save_last: true}}
    - class_path: ResultsWriter
    - class_path: DropCounter
    - class_path: SubgroupResults
      init_args: {{columns: [gender, years]}}
model:
  class_path: ClassificationTask
  init_args:
    column: eyewear
    network:
      image: {{image_size: 64, patch_size: 8, width: 96, depth: 4, heads: 3}}
    optim: {{lr: 2.0e-3, weight_decay: 0.05, warmup_ratio: 0.1, schedule: cosine}}
data:
  class_path: TableDataModule
  init_args:
    root: visitors
    table: visitors.csv
    columns:
      image: photo
      labels: {{eyewear: [bare, glasses], years: number}}
      groups: [gender, years]
      bins: {{years: [30, 60]}}
      identity: visitor
      split: part
      points: [{", ".join(points)}]
    batch_size: 32
    transform: {{size: 64, crop: align, align_scale: 2.0, shift: 0.02, rotation: 0.1, zoom: 0.05, horizontal_flip: 0.5}}
"""
Path("glasses.yaml").write_text(config)

# %% [markdown]
# ## Look before training
#
# `farl-lightning preview` draws the first batch after cropping and augmentation; `main` is that command line in Python.

# %%
assert main(["preview", "--config", "glasses.yaml", "--output", "preview.png"]) == 0
Shown("preview.png")

# %% [markdown]
# ## Train, and test on people whom training never saw
#
# A picture that is missing and a word that is no number end nothing: `DropCounter` counts them, and writes which row it
# was. A result alone says little, so it stands beside what needs no picture at all: always giving the more frequent answer.

# %%
assert main(["fit", "--config", "glasses.yaml"]) == 0
checkpoint = max(Path("runs/glasses").rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)

# %%
assert main(["test", "--config", "glasses.yaml", "--ckpt_path", str(checkpoint)]) == 0
run = max(Path("runs").rglob("test_subgroups.csv"), key=lambda path: path.stat().st_mtime).parent
result = json.loads((run / "results.json").read_text())["test"]["metrics"]["test/accuracy"]
print(f"accuracy {result['value']:.1f} %, the more frequent answer {result['baseline']:.1f} %")
print(f"better by {result['low']:.1f} to {result['high']:.1f} points (95 % interval over faces)")

# %% [markdown]
# The same by group. Small groups differ by chance: the interval says by how much, and the gap stands beside the gap that
# chance alone would make.

# %%
with (run / "test_subgroups.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        print(
            f"{row['column']:7s} {row['group']:6s} {row['faces']:>4s} faces {float(row['mean']):5.1f} % {row['note']}"
        )
Shown(str(run / "test_subgroups.png"))

# %% [markdown]
# ## Features instead of training
#
# With a pretrained encoder, the first thing to try takes seconds: compute features once, and let a simple learner read the
# labels off them. Here the encoder is the one just trained. It knows eyewear, and was never asked for ages: the error in
# years is hardly below that of always answering the median age. That is what pretraining on faces is for: with FaRL's
# encoder the same line reads `--ckpt_path farl-b16-ep16`.

# %%
embed = ["embed", "--ckpt_path", str(checkpoint), "--config", "glasses.yaml", "--output", "features.npz", "--overwrite"]
assert main(embed) == 0
assert main(["probe", "features.npz", "--column", "years", "--method", "linear", "knn"]) == 0

# %% [markdown]
# ## Use it
#
# The checkpoint knows how its faces were cropped and what its answers are called. From photographs without points, a
# detector finds the faces (`pip install 'farl-lightning[detect]'`).

# %%
predictor = FacePredictor.load(checkpoint, device="cpu")
strangers = [SyntheticFaces(1, image_size=160, seed=seed)[0] for seed in range(100, 106)]
found = predictor([face.image for face in strangers], points=[face.five_points[None] for face in strangers])
for face, (answer,) in zip(strangers, found, strict=True):
    truth = "glasses" if face.attributes[glasses] == 1 else "bare"
    print(f"{answer.label:8s} {answer.probabilities[answer.label]:6.1%}   in truth: {truth}")
Image.fromarray(np.concatenate([face.image for face in strangers], 1))

# %% [markdown]
# ## Further
#
# - Start from FaRL: `--model.weights farl-b16-ep16 --model.network.image.image_size 224` and a GPU; `--model.tuning frozen`
#   trains the head alone, `--model.tuning lora` small adapters, which `farl-lightning merge` adds to the weights afterwards.
# - A number instead of classes: `--model AgeTask --model.column years`. Yes-or-no columns: `attributes` and `AttributeTask`.
# - One file that runs without this package: `farl-lightning export --ckpt_path last.ckpt --format onnx`.
