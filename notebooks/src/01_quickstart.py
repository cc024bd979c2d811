# %% [markdown]
# # Pretrain a face CLIP in minutes
#
# FaRL trains one vision transformer on two things at once: to match pictures with captions (image-text contrast), and
# to guess what lies under hidden patches (masked image modelling). Here it does so on faces drawn from a seed, so there
# is nothing to download and no GPU to wait for. At the end the model finds the captions of faces it has never
# seen, and sorts pictures by a description in words.

# %% tags=["parameters"]
train_count = 8192  # drawn faces to train on
steps = 580  # of 64 pictures each
val_count = 256  # faces of people that training never shows

# %%
import lightning as L
import torch
from PIL import Image

from farl_lightning import Contrastive, MaskedImage, OptimConfig, PretrainTask, SyntheticFaces, SyntheticFacesDataModule
from farl_lightning.models import FaceCLIPConfig, ImageEncoderConfig, KMeansTokens, TextEncoderConfig
from farl_lightning.transforms import PretrainTransformConfig
from farl_lightning.visualization import RankedCaption, caption_ranking, hide_patches, image_grid, to_pixels

L.seed_everything(0, verbose=False)

# %% [markdown]
# ## The data: drawn faces with captions that tell the truth
#
# Every face has captions, parsing masks, landmarks, 40 attributes, age, expression and pose. The same index gives the
# same face on every machine.

# %%
faces = SyntheticFaces(6, image_size=256, seed=1)
Image.fromarray(image_grid([[face.image for face in faces]], cell=2.0))

# %%
for face in list(faces)[:3]:
    print("-", face.captions[0])

# %% [markdown]
# ## What training sees
#
# A datamodule cuts the face so that eyes, nose and mouth lie where FaRL's template has them, picks one of the captions, turns it into tokens, and draws a block-wise mask (BEiT's) for each
# picture. All of that depends on the seed, the epoch and the sample alone, which is what makes a resumed run exact.

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
data.setup("fit")
batch = next(iter(data.train_dataloader()))
{name: tuple(value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor)}

# %%
pixels = to_pixels(batch["image"][:6], data.spec.mean, data.spec.std)
Image.fromarray(image_grid([list(pixels), list(hide_patches(pixels, batch["patch_mask"][:6]))]))

# %% [markdown]
# ## The model: two towers, two objectives
#
# Each objective names what it needs; the image tower then runs once on [clean ; masked] pictures. The target of masked
# image modelling is a codebook of patches that is fitted before the first step. With real data it is DALL-E's
# (`DVAETokens`), as in BEiT.

# %%
task = PretrainTask(
    clip=FaceCLIPConfig(
        embed_dim=256,
        image=ImageEncoderConfig(image_size=64, patch_size=16, width=192, depth=4, heads=4),
        text=TextEncoderConfig(width=128, depth=2, heads=4),
    ),
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
    zero_shot=["Black_Hair", "Eyeglasses", "Smiling"],
)
trainer = L.Trainer(
    max_steps=steps,
    val_check_interval=steps,
    check_val_every_n_epoch=None,
    accelerator="cpu",
    gradient_clip_val=1.0,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(task, datamodule=data)

# %% [markdown]
# ## What it learned
#
# Beside every number stands what knows nothing would reach: chance for retrieval, the majority answer for the rest.

# %%
found = {name: float(value) for name, value in trainer.callback_metrics.items()}
for name, reference in task.references.items():
    print(f"{name:<32} {found[name]:6.1%}   {reference['kind']} {reference['baseline']:6.1%}")

# %% [markdown]
# ## Find the caption of an unseen face

# %%
task.eval()
held_out = next(iter(data.val_dataloader()))
with torch.no_grad():
    similarity = task.caption_similarity(held_out)
shown = [0, 8, 16, 24]
ranked = []
for index in shown:
    best = similarity[index].argsort(descending=True)[:5].tolist()
    texts = [(rank, other, held_out["caption"][other]) for rank, other in enumerate(best, 1)]
    ranked.append(
        [RankedCaption(rank, text, float(similarity[index, other]), other == index) for rank, other, text in texts]
    )
pictures = to_pixels(held_out["image"][shown], data.spec.mean, data.spec.std)
Image.fromarray(caption_ranking(list(pictures), ranked))

# %% [markdown]
# ## Zero-shot: a question in your own words
#
# Pictures are sorted by how much nearer they lie to one sentence than to the other. Colours are learned first, then
# glasses and smiles; gender and hats need a longer run than this one.

# %%
from farl_lightning import Tokenizer

words = ["a photo of a smiling woman wearing glasses", "a photo of a serious man with no glasses"]
with torch.no_grad():
    outputs = task.model.clip(held_out["image"], Tokenizer()(words))
images = torch.nn.functional.normalize(outputs.image_features, dim=-1)
texts = torch.nn.functional.normalize(outputs.text_features, dim=-1)
preference = (images @ texts.T) @ torch.tensor([1.0, -1.0])
order = preference.argsort(descending=True)
best = to_pixels(held_out["image"][order[:8]], data.spec.mean, data.spec.std)
worst = to_pixels(held_out["image"][order[-8:]], data.spec.mean, data.spec.std)
Image.fromarray(image_grid([list(best), list(worst)], captions=words, cell=1.2))

# %% [markdown]
# The same from a shell, with checkpoints and TensorBoard: `farl-lightning fit --config pretrain.yaml`. The next notebook
# adds an objective and a head of your own.
