# %% [markdown]
# # What does an encoder know? Zero-shot and probes
#
# A pretrained encoder is judged by what can be read off its features. Without any label: compare a face with sentences
# (zero-shot). With a few: fit a linear layer, or ask the nearest neighbours (probes). Features are computed once and
# kept in a file; every question after that costs seconds. Here a small FaRL is pretrained on faces drawn from a seed,
# and a probe watches it on the way.

# %% tags=["parameters"]
train_count = 8192  # drawn faces to pretrain on, with captions
steps = 580  # of 64 pictures each
val_count = 256  # of people that pretraining never shows
labelled_count = 2048  # drawn faces with labels, for the probes
test_count = 512  # faces of people that nobody has seen
budgets = [1, 5, 10, 100]  # labels per class

# %%
import lightning as L
import matplotlib.pyplot as plt
import torch

from farl_lightning import (
    Contrastive,
    MaskedImage,
    OptimConfig,
    PretrainTask,
    SyntheticFacesDataModule,
    SyntheticGlobalDataModule,
)
from farl_lightning.callbacks import OnlineProbe
from farl_lightning.datamodules.embedding import LabelledSource
from farl_lightning.metrics.subgroups import subgroup_table
from farl_lightning.models import EncoderFeatures, FaceCLIPConfig, ImageEncoder, ImageEncoderConfig
from farl_lightning.models import KMeansTokens, TextEncoderConfig
from farl_lightning.probing import read_features, run_probe
from farl_lightning.probing.embedding import embed
from farl_lightning.transforms import PretrainTransformConfig

L.seed_everything(0, verbose=False)

# %% [markdown]
# ## Pretraining, with a probe that watches
#
# After each validation `OnlineProbe` fits a linear probe and k nearest neighbours on features of validation faces, and
# judges each on faces that it has not seen. Training meets no label. In a YAML file it is one line under `callbacks`.

# %%
data = SyntheticFacesDataModule(
    train_count=train_count,
    val_count=val_count,
    batch_size=64,
    image_size=96,
    transform=PretrainTransformConfig(
        image_size=64, patch_size=16, crop="align", num_masked=6, min_block=2, scale=(1, 1), ratio=(1, 1)
    ),
)
image = ImageEncoderConfig(image_size=64, patch_size=16, width=192, depth=4, heads=4)
task = PretrainTask(
    clip=FaceCLIPConfig(embed_dim=256, image=image, text=TextEncoderConfig(width=128, depth=2, heads=4)),
    objectives={
        "contrastive": Contrastive(),
        "masked_image": MaskedImage(target=KMeansTokens(256, num_patches=4096, iterations=8)),
    },
    optim=OptimConfig(
        lr=1e-3,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        warmup_steps=min(40, steps // 2),
        group_lrs={"clip.logit_scale": 1e-2},
    ),
    zero_shot=["Black_Hair", "Eyeglasses", "Smiling", "Male"],
)


class History(L.Callback):
    """Keeps what the probe finds after each validation."""

    def __init__(self):
        self.rows = []

    def on_validation_end(self, trainer, pl_module):
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if "probe" in name}
        self.rows.append((trainer.global_step, found))


history = History()
trainer = L.Trainer(
    max_steps=steps,
    val_check_interval=max(1, steps // 4),
    check_val_every_n_epoch=None,
    accelerator="cpu",
    gradient_clip_val=1.0,
    callbacks=[OnlineProbe(), history],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, datamodule=data)
for step, found in history.rows:
    print(
        f"step {step:4d}   " + "   ".join(f"{name.removeprefix('val/')} {value:.1f}" for name, value in found.items())
    )

# %% [markdown]
# ## Zero-shot: no label at all
#
# Each attribute is asked by several sentences for yes and several for no. Beside the accuracy stand that of the more
# frequent answer and the bootstrap interval of the difference: an interval above 0 is knowledge, not luck.

# %%
for name, reference in task.references.items():
    if "zero_shot" in name:
        value = float(trainer.callback_metrics[name])
        print(f"{name:<40} {value:6.1%}   {reference['kind']} {reference['baseline']:6.1%}")

# %% [markdown]
# ## Features, once
#
# `embed` keeps several features of every face: the class token and the mean of the patches of chosen blocks, and the
# feature that is compared with captions. It is resumable, and counts pictures that cannot be used. From a shell:
# `farl-lightning embed --ckpt_path last.ckpt --config attributes.yaml --output feats.parquet`; a folder of photographs
# or a table with label columns will do, too. The same network at random stands beside it: it tells what the
# architecture alone is worth.

# %%
labelled = SyntheticGlobalDataModule(train_count=labelled_count, val_count=1, test_count=test_count)
torch.manual_seed(0)
encoders = {"pretrained": task.model.clip.image_encoder, "random": ImageEncoder(image, 256, mask_token=False)}
tables = {}
for name, encoder in encoders.items():
    extractor = EncoderFeatures(encoder, data.spec, blocks=range(4))
    source = LabelledSource(labelled, data.spec, ["train", "test"], crop=data.spec.crop)  # cut as in pretraining
    print(name, embed(extractor, source, f"{name}.npz", overwrite=True).faces, "faces")
    tables[name] = read_features(f"{name}.npz")
print(list(tables["pretrained"].features))
print("columns:", ", ".join(tables["pretrained"].labels))

# %% [markdown]
# ## Which block, which pooling?
#
# A linear probe of all attributes on each feature. The best feature is seldom the last one.

# %%
for feature in tables["pretrained"].features:
    found = {
        name: run_probe(table.split("train"), table.split("test"), "attributes", "ridge", features=feature)
        for name, table in tables.items()
    }
    print(f"{feature:<14}" + "".join(f"   {name} {result.value:.2f} %" for name, result in found.items()))
print(f"{'majority':<14}   {found['random'].baseline:.2f} %")

# %% [markdown]
# ## Four ways to probe, three kinds of labels
#
# Attributes and expressions are right in so many percent of all test faces; ages are wrong by so many years.

# %%
table = tables["pretrained"]
train, test = table.split("train"), table.split("test")
for column in ("attributes", "expression", "age"):
    for method in ("linear", "ridge", "sgd", "knn"):
        result = run_probe(train, test, column, method, features="block3.mean")
        interval = f"{result.low:.2f} to {result.high:.2f}"
        print(
            f"{column:<11} {method:<7} {result.metric:<14} {result.value:6.2f}  ({interval}; nothing {result.baseline:.2f})"
        )

# %% [markdown]
# ## Few labels
#
# A good representation needs few labels. Every budget is drawn three times; a larger one holds the smaller.

# %%
figure, axis = plt.subplots(figsize=(6, 3.5))
for name, table in tables.items():
    for method, style in (("linear", "-o"), ("knn", "--o")):
        means = [
            sum(
                run_probe(
                    table.split("train"), table.split("test"), "gender", method, budget, seed, features="block3.mean"
                ).value
                for seed in range(3)
            )
            / 3
            for budget in budgets
        ]
        axis.plot(budgets, means, style, label=f"{name}, {method}")
axis.set(xscale="log", xlabel="labels per class", ylabel="accuracy of gender, %")
axis.legend()
figure.tight_layout()

# %% [markdown]
# ## Whom does it serve?
#
# Every probe keeps the outcome of each face, so that any result can be split by any column.

# %%
result = run_probe(train, test, "expression", features="block3.mean")
for column in ("gender", "age_group"):
    split = subgroup_table(torch.from_numpy(result.outcomes), test.group(column))
    for row in split.rows:
        print({key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()})
    print(f"{column}: worst {split.worst or 'unknown'}, best {split.best or 'unknown'}, gap {split.gap.value:.1f}")

# %% [markdown]
# From a shell: `farl-lightning probe feats.parquet --column gender --method linear knn --budget 1 5 10 100 --seeds 3`.
# The next notebook does all of this with faces of your own.
