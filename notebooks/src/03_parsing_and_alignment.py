# %% [markdown]
# # Face parsing and face alignment
#
# FaRL's headline results are dense: a label for every pixel (parsing), and landmarks (alignment). Both put a feature
# pyramid and a UPerNet head on the pretrained vision transformer. Here both are trained on faces drawn from a seed, for a
# minute each; the truth of every pixel is known, so results can be looked at closely. The last cells predict on a
# photograph and write a file that runs without this package.

# %% tags=["parameters"]
train_count = 1024  # drawn faces to train on
val_count = 64  # faces of people that training never shows
parsing_steps = 500  # of 8 pictures each
alignment_steps = 500
weights = None  # a file whose encoder to start from, of the same sizes as `network` below

# %%
import lightning as L
import numpy as np
from PIL import Image

from farl_lightning import (
    AlignmentTask,
    FacePredictor,
    OptimConfig,
    ParsingTask,
    SyntheticAlignmentDataModule,
    SyntheticFaces,
    SyntheticParsingDataModule,
)
from farl_lightning.callbacks import EMA
from farl_lightning.losses import AlignmentLoss, ParsingLoss
from farl_lightning.models import DenseConfig, ImageEncoderConfig
from farl_lightning.transforms.dense_config import alignment_recipe, parsing_recipe
from farl_lightning.visualization import (
    alignment_panel,
    ced_plot,
    class_palette,
    confusion_picture,
    image_grid,
    overlay_landmarks,
    overlay_mask,
    parsing_panel,
    to_pixels,
)

L.seed_everything(0, verbose=False)

# %% [markdown]
# ## The data
#
# A record is a picture with what is known of it: a label for every pixel, landmarks, five points, a box. These are the
# eleven classes of LaPa and the 68 landmarks of 300-W.

# %%
counts = {"train_count": train_count, "val_count": val_count, "batch_size": 8}
parsing_data = SyntheticParsingDataModule(transform=parsing_recipe(size=64, align_scale=2.0, rotation=0.1), **counts)
alignment_data = SyntheticAlignmentDataModule(
    transform=alignment_recipe(size=64, rotation=0.1, occlusion=0.0, noise=0.0), **counts
)
palette = class_palette(parsing_data.spec.classes)

faces = SyntheticFaces(6, image_size=224, seed=1)
Image.fromarray(
    image_grid(
        [
            [face.image for face in faces],
            [overlay_mask(face.image, face.mask_lapa, palette) for face in faces],
            [overlay_landmarks(face.image, face.landmarks(68)) for face in faces],
        ]
    )
)

# %% [markdown]
# ## What training sees
#
# Cropping and augmentation are one warp from the picture to the crop, the same for picture, mask and landmarks. Parsing
# aligns the crop by five points and squeezes what surrounds the face into its margin (tanh warp), so that all of the hair
# fits in. Alignment crops by the box; FaRL's recipe also hides parts of the faces and mixes in noise, for a longer training
# than this one.

# %%
parsing_data.setup("fit")
alignment_data.setup("fit")
masked = next(iter(parsing_data.train_dataloader()))
marked = next(iter(alignment_data.train_dataloader()))
masked_pixels = to_pixels(masked["image"][:6], parsing_data.spec.mean, parsing_data.spec.std)
marked_pixels = to_pixels(marked["image"][:6], alignment_data.spec.mean, alignment_data.spec.std)
Image.fromarray(
    image_grid(
        [
            [overlay_mask(*pair, palette) for pair in zip(masked_pixels, masked["mask"][:6].numpy(), strict=True)],
            [overlay_landmarks(*pair) for pair in zip(marked_pixels, marked["landmarks"][:6].numpy(), strict=True)],
        ],
        cell=1.6,
    )
)

# %% [markdown]
# ## Parsing
#
# The recipes for LaPa and CelebAMask-HQ use FaRL's ViT-B/16 at 448 pixels; this one is small enough for a CPU. With
# `weights`, the encoder starts from pretraining. `tuning="frozen"` leaves it as it is, `"lora"` adds small adapters.

# %%
network = DenseConfig(
    image=ImageEncoderConfig(image_size=64, patch_size=8, width=96, depth=12, heads=3), channels=32, dropout=0.0
)


def train(task: L.LightningModule, data: L.LightningDataModule, steps: int) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        callbacks=[EMA(decay=0.97)],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=data)
    return trainer


def optimiser(steps: int) -> OptimConfig:
    groups = {"encoder": 1.2e-3}  # a deep encoder wants smaller steps than neck and head
    return OptimConfig(lr=6e-3, weight_decay=0.01, warmup_steps=min(30, steps // 2), group_lrs=groups)


# %%
# brows and lips are few pixels: an overlap loss beside FaRL's cross-entropy finds them sooner
loss = ParsingLoss(dice=1.0)
parsing = ParsingTask(network, weights=weights, loss=loss, optim=optimiser(parsing_steps))
trainer = train(parsing, parsing_data, parsing_steps)
f1 = trainer.callback_metrics["val/f1_mean"]
print(f"mean F1 of the ten foreground classes, in pixels of the pictures: {f1:.1f}")
trainer.save_checkpoint("parsing.ckpt")

# %% [markdown]
# Judging happens in the pixels of the source picture: the logits are carried back through the inverse of crop and warp,
# which is also how FaRL's numbers for LaPa came about. Each row below is a face of somebody training never saw.

# %%
predictor = FacePredictor.load("parsing.ckpt")
unseen = [parsing_data.faces("val")[index] for index in range(4)]
found = predictor([face.image for face in unseen], points=[face.points for face in unseen])
Image.fromarray(
    parsing_panel(
        [face.image for face in unseen],
        [face.mask for face in unseen],
        [result[0].labels for result in found],
        parsing_data.spec.classes,
    )
)

# %% [markdown]
# Which classes are taken for which? A row is a true class, a column a predicted one.

# %%
Image.fromarray(confusion_picture(parsing.findings["confusion"], parsing.findings["classes"]))

# %%
for row in parsing.tables["per_class"]:
    print(f"{row['class']:<12} F1 {row['f1']:5.1f}   IoU {row['iou']:5.1f}   {row['pixels']:>8,.0f} pixels")

# %% [markdown]
# ## Alignment
#
# The same network with one heatmap per landmark: a landmark is the centre of mass of its heatmap. The error of a face is the
# mean distance to the truth, divided by the distance between the outer corners of the eyes.

# %%
loss = AlignmentLoss(heatmap_size=16, radius=3.0, heatmap_bce=10.0)  # small crops have small heatmaps
alignment = AlignmentTask(network, weights=weights, loss=loss, optim=optimiser(alignment_steps))
trainer = train(alignment, alignment_data, alignment_steps)
print(f"normalised mean error (inter-ocular): {trainer.callback_metrics['val/nme']:.2f} %")
trainer.save_checkpoint("alignment.ckpt")

# %%
batch = next(iter(alignment_data.val_dataloader()))
alignment.eval()
answer = alignment.preview(batch)
zoom = 4  # dots are easier to see on larger pictures
crops = to_pixels(batch["image"][:3], alignment_data.spec.mean, alignment_data.spec.std)
Image.fromarray(
    alignment_panel(
        crops.repeat(zoom, axis=1).repeat(zoom, axis=2),
        zoom * batch["landmarks"][:3].numpy() + (zoom - 1) / 2,
        zoom * answer["landmarks"][:3].numpy() + (zoom - 1) / 2,
        answer["heatmaps"][:3].numpy(),
    )
)

# %% [markdown]
# The cumulative error distribution: how many faces have at most which error. AUC is the area under it up to the threshold,
# FR the share of faces beyond.

# %%
Image.fromarray(
    ced_plot(
        alignment.findings["ced"],
        threshold=alignment.findings["threshold"],
        normalizer=alignment.findings["normalizer"],
    )
)

# %% [markdown]
# ## Predict on a photograph
#
# A checkpoint knows how its faces are cropped and what its classes are called. The photograph here is drawn, too: two
# people, whose five points (eyes, nose tip, mouth corners) and boxes are given. On photographs of real people a detector
# finds them (`pip install --no-deps facenet-pytorch`, or OpenCV's YuNet), and `predictor("photo.jpg")` is all.

# %%
people = [SyntheticFaces(1, image_size=side, seed=seed)[0] for side, seed in ((320, 5), (240, 9))]
places = np.array([[0, 0], [320, 80]])
photo = np.zeros((320, 560, 3), np.uint8) + people[1].image[0, 0]
for person, (x, y) in zip(people, places, strict=True):
    side = len(person.image)
    photo[y : y + side, x : x + side] = person.image
Image.fromarray(photo).save("photo.jpg", quality=92)

points = np.stack([person.five_points + place for person, place in zip(people, places, strict=True)])
boxes = np.stack([person.box + np.tile(place, 2) for person, place in zip(people, places, strict=True)])

parsed = FacePredictor.load("parsing.ckpt")("photo.jpg", points=points)
aligned = FacePredictor.load("alignment.ckpt")("photo.jpg", boxes=boxes)
drawn = np.asarray(Image.open("photo.jpg"))
tinted, dotted = drawn, drawn
for face, marks in zip(parsed, aligned, strict=True):
    tinted = overlay_mask(tinted, face.labels, palette)
    dotted = overlay_landmarks(dotted, marks.landmarks)
Image.fromarray(np.vstack([tinted, dotted]))

# %% [markdown]
# Everything is in the photograph's own pixels: `face.mask("hair")` is a mask of the photograph's size, `face.landmarks` are
# positions in it. A picture that is a crop of one face already needs neither points nor detector:

# %%
eyes, mouth = points[1][:2].mean(0), points[1][3:].mean(0)  # they place a crop like those of training
side = 1.9 * np.linalg.norm(mouth - eyes)
left, top = eyes + 0.22 * (mouth - eyes) - side / 2
crop = Image.open("photo.jpg").crop((left, top, left + side, top + side))
(face,) = predictor(crop, detect=False)
print({name: int(face.mask(name).sum()) for name in ("hair", "nose", "le")}, "pixels")
Image.fromarray(face.draw())

# %% [markdown]
# ## Take it along
#
# `export` writes one file with crop, network and the way back inside, and compares it with the checkpoint. `--format torch` is
# a program of `torch.export`; `--format onnx` needs the extra `export`.

# %%
from farl_lightning.cli import main

status = main(["export", "--ckpt_path", "parsing.ckpt", "--format", "torch", "--overwrite"])
assert status == 0

# %% [markdown]
# From a shell, with checkpoints, picture panels in TensorBoard and a table of results:
# `farl-lightning fit --config parsing.yaml` and `farl-lightning fit --config alignment.yaml`; on the benchmarks,
# `farl-lightning fit --config parsing/lapa.yaml --data.root data/LaPa`. See docs/parsing_and_alignment.md.
