# %% [markdown]
# # An objective, a head and a config of your own
#
# Everything here is an ordinary class in your own project: nothing has to be registered or patched. This notebook adds a
# third objective to pretraining, runs it from a YAML file, and puts a small head on the pretrained tower.

# %% tags=["parameters"]
train_count = 2048
steps = 120
head_steps = 80

# %% [markdown]
# ## An objective in a file of your own
#
# `needs` names the passes that the objective reads; each pass runs once however many objectives ask for it. What
# `forward` returns is the loss, and whatever shall be logged.

# %%
from pathlib import Path

Path("my_objectives.py").write_text('''
import torch
import torch.nn.functional as F

from farl_lightning import Objective
from farl_lightning.objectives import ObjectiveResult


class Uniformity(Objective):
    """Spread image features over the sphere (Wang and Isola, 2020)."""

    needs = frozenset({"image"})

    def __init__(self, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__(weight)
        self.temperature = temperature

    def forward(self, outputs, batch):
        distances = torch.pdist(F.normalize(outputs.image_features, dim=-1)).square()
        loss = distances.mul(-self.temperature).exp().mean().log()
        return ObjectiveResult(loss, {"mean_distance": distances.mean().detach()})
''')

# %% [markdown]
# ## A YAML file of your own
#
# The shipped config is laid under yours. A dictionary replaces the one below it, so all objectives are named here;
# their names become metric names. On the command line, `--model.objectives.uniformity my_objectives.Uniformity` adds one
# to those of the config.

# %%
Path("mine.yaml").write_text(f"""
# FaRL in miniature, with features spread over the sphere.
trainer:
  max_steps: {steps}
  val_check_interval: {steps}
  enable_progress_bar: false
model:
  init_args:
    objectives:
      contrastive: {{class_path: Contrastive}}
      masked_image:
        class_path: MaskedImage
        init_args:
          target: {{class_path: KMeansTokens, init_args: {{vocab_size: 256, num_patches: 4096, iterations: 8}}}}
      uniformity:
        class_path: my_objectives.Uniformity
        init_args: {{weight: 0.1}}
    optim:
      warmup_steps: {steps // 4}
data:
  init_args:
    train_count: {train_count}
""")

# %%
from farl_lightning.cli import main

status = main(["fit", "--config", "pretrain.yaml", "--config", "mine.yaml", "--trainer.logger.init_args.name", "mine"])
assert status == 0

# %%
import json

run = max(Path("runs/mine").glob("version_*"), key=lambda path: path.stat().st_mtime)
metrics = json.loads((run / "results.json").read_text())["fit"]["metrics"]
{name: round(metrics[name]["value"], 3) for name in ("train/loss_uniformity", "val/image_to_text_r1")}

# %% [markdown]
# ## A head of your own on the pretrained tower
#
# `BaseTask` asks for a network and for one step; settings, optimiser, schedule, checkpoints and exact resume come with
# it. Here a linear layer learns to see hats while the tower is frozen.

# %%
import lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from farl_lightning import BaseTask, FaceCLIP, OptimConfig, SyntheticFacesDataModule


class FrozenTowerClassifier(nn.Module):
    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.clip = FaceCLIP.from_checkpoint(checkpoint).requires_grad_(False)
        self.head = nn.LazyLinear(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.clip(images).image_features
        return self.head(F.normalize(features, dim=-1)).squeeze(-1)


class AttributeHeadTask(BaseTask):
    """Recognise one attribute with a linear layer on frozen features."""

    def __init__(self, checkpoint: str, attribute: str, optim: OptimConfig | None = None, seed: int = 0) -> None:
        super().__init__(optim, seed)
        self.checkpoint, self.attribute = checkpoint, attribute
        self.build()

    def build_model(self) -> nn.Module:
        model = FrozenTowerClassifier(self.checkpoint)
        size = model.clip.image_encoder.image_size
        model(torch.zeros(1, 3, size, size))  # sizes the lazy layer
        return model

    def _step(self, batch, batch_idx, stage):
        truth = batch["labels"][:, self.spec.attributes.index(self.attribute)].float()
        logits = self.model(batch["image"])
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        accuracy = ((logits > 0) == (truth > 0.5)).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy}, batch_size=len(truth))
        self.log(f"{stage}/majority", torch.maximum(truth.mean(), 1 - truth.mean()), batch_size=len(truth))
        return loss


# %%
settings = json.loads((run / "results.json").read_text())["fit"]["settings"]["data"]
settings = {name: value for name, value in settings.items() if not name.startswith("_")}
from farl_lightning.transforms import PretrainTransformConfig

settings["transform"] = PretrainTransformConfig(**settings["transform"])
data = SyntheticFacesDataModule(**settings)
task = AttributeHeadTask(str(run / "checkpoints" / "last.ckpt"), "Wearing_Hat", OptimConfig(lr=3e-2, weight_decay=0.0))
trainer = L.Trainer(
    max_steps=head_steps,
    val_check_interval=head_steps,
    check_val_every_n_epoch=None,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, datamodule=data)
{name: round(float(value), 3) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}

# %% [markdown]
# From a shell the same task is `--model mymodule.AttributeHeadTask`: the folder you stand in is on the import path.
# `farl-lightning init DIR` writes a project with an objective, a head, a config and a test to start from.
