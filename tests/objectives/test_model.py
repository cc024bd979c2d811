"""The pretraining model: which passes run, what is frozen, own objectives, several processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.image_tokenizer import PixelTarget
from farl_lightning.objectives import Contrastive, MaskedImage, Objective, ObjectiveResult, PretrainModel
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.testing.models import tiny_config


class Spread(Objective):
    """A user's own objective: keeps the features of a batch apart."""

    needs = frozenset({"image"})

    def __init__(self, weight: float = 1.0, margin: float = 0.1) -> None:
        super().__init__(weight)
        self.margin = margin

    def forward(self, outputs, batch):
        mean = nn.functional.normalize(outputs.image_features, dim=1).mean(0)
        return ObjectiveResult((mean.square().sum() - self.margin).relu(), {"length": mean.norm().detach()})


class Uniform(Objective):
    """The least that an objective can be."""

    needs = frozenset({"image"})

    def forward(self, outputs, batch):
        return ObjectiveResult(torch.pdist(nn.functional.normalize(outputs.image_features, dim=-1)).mean())


def test_an_objective_need_not_log_anything():
    result = _model(uniform=Uniform(weight=0.5))(_batch())
    assert result.results["uniform"].logs == {}
    assert torch.equal(result.loss, 0.5 * result.results["uniform"].loss)


def _batch(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1, 400, (count, 77), generator=generator)
    text[:, 5], text[:, 6:] = 49407, 0
    mask = torch.rand(count, 16, generator=generator) < 0.4
    return {"image": torch.randn(count, 3, 32, 32, generator=generator), "text": text, "patch_mask": mask}


def _model(**objectives):
    torch.manual_seed(0)
    return PretrainModel(FaceCLIP(tiny_config()), objectives)


def _mim(weight=1.0):
    return MaskedImage(weight, target=PixelTarget())


def _calls(model, batch, **options):
    """Rows that went through the image tower's first block and the text tower, and the result."""
    rows = {"image": [], "text": []}
    first = model.clip.image_encoder.vit.blocks[0]
    handles = [
        first.register_forward_pre_hook(lambda _, args: rows["image"].append(len(args[0]))),
        model.clip.text_encoder.register_forward_pre_hook(lambda _, args: rows["text"].append(len(args[0]))),
    ]
    result = model(batch, **options)
    for handle in handles:
        handle.remove()
    return rows, result


@pytest.mark.parametrize(
    ("objectives", "image", "text"),
    [
        ({"itc": Contrastive()}, [4], [4]),  # no masked half
        ({"mim": _mim()}, [4], []),  # the masked half alone
        ({"itc": Contrastive(), "mim": _mim()}, [8], [4]),  # one doubled pass
        ({"itc": Contrastive(), "sigmoid": Contrastive(form="siglip"), "own": Spread()}, [4], [4]),  # shared passes
    ],
)
def test_every_pass_that_is_needed_runs_once(objectives, image, text):
    rows, result = _calls(_model(**objectives), _batch())
    assert rows == {"image": image, "text": text}
    assert set(result.results) == set(objectives)


def test_a_caller_may_ask_for_more():
    rows, result = _calls(_model(mim=_mim()), _batch(), also={"image", "tokens"})
    assert rows["image"] == [8]
    assert result.outputs.image_features.shape == (4, 32)
    assert result.outputs.tokens.shape == (4, 17, 48)


def test_loss_is_the_weighted_sum():
    model, batch = _model(itc=Contrastive(0.25), mim=_mim(3.0)), _batch()
    result = model(batch)
    expected = 0.25 * result.results["itc"].loss + 3 * result.results["mim"].loss
    torch.testing.assert_close(result.loss, expected)


def test_autocast_keeps_losses_precise():
    model, batch = _model(itc=Contrastive(), mim=_mim()).eval(), _batch()
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(batch)
    assert result.outputs.image_features.dtype == torch.bfloat16
    for name, part in result.results.items():
        assert part.loss.dtype == torch.float32
        assert part.loss.item() == pytest.approx(exact.results[name].loss.item(), rel=0.05)
    result.loss.backward()


def test_masking_does_not_touch_the_contrast():
    batch = _batch()
    torch.testing.assert_close(
        _model(itc=Contrastive(), mim=_mim())(batch).results["itc"].loss, _model(itc=Contrastive())(batch).loss
    )


@pytest.mark.parametrize(
    "objectives",
    [{"itc": Contrastive()}, {"mim": _mim()}, {"own": Spread(margin=-1)}, {"itc": Contrastive(), "mim": _mim()}],
)
def test_every_parameter_is_read_or_frozen(objectives):
    model = _model(**objectives)
    model(_batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert model.clip.image_encoder.vit.cls_token.requires_grad


def test_a_dozen_lines_make_an_objective():
    model, batch = _model(itc=Contrastive(), spread=Spread(0.5, margin=0.2)), _batch()
    result = model(batch)
    image = nn.functional.normalize(model.clip(batch["image"]).image_features, dim=1).mean(0).square().sum()
    torch.testing.assert_close(result.results["spread"].loss, image - 0.2)
    assert result.results["spread"].logs["length"] > 0
    assert Spread(0.5).to_config()["init_args"] == {"weight": 0.5, "margin": 0.1}


def test_state_dict_keys_are_the_checkpoints():
    keys = set(_model(itc=Contrastive(form="siglip"), mim=_mim()).state_dict())
    assert {"clip.logit_scale", "objectives.itc.logit_bias", "objectives.mim.head.head.weight"} <= keys
    assert all(key.startswith(("clip.", "objectives.itc.", "objectives.mim.")) for key in keys)


@pytest.mark.parametrize(
    ("objectives", "missing", "message"),
    [
        (
            {"mim": _mim()},
            "patch_mask",
            r"objective 'mim' needs masked patches.*transform\.mask to 'block' or 'random'",
        ),
        ({"itc": Contrastive()}, "text", r"objective 'itc' needs captions.*no 'text'"),
    ],
)
def test_a_batch_that_lacks_something_names_the_setting(objectives, missing, message):
    batch = {key: value for key, value in _batch().items() if key != missing}
    with pytest.raises(ConfigError, match=message):
        _model(**objectives)(batch)


def test_a_mask_of_another_grid_names_the_setting():
    batch = _batch() | {"patch_mask": torch.zeros(4, 9, dtype=torch.bool)}
    with pytest.raises(ConfigError, match=r"16 patches.*image_size to 32 and transform\.patch_size to 8"):
        _model(mim=_mim())(batch)


class _Misspelt(Objective):
    needs = frozenset({"imgae"})


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({}, "at least one objective"),
        ({"a": _Misspelt()}, "needs 'imgae', which does not exist. Did you mean 'image'"),
        ({"a.b": Contrastive()}, "cannot have this name"),
        ({"keys": Contrastive()}, "cannot have this name"),
    ],
)
def test_objectives_that_cannot_work_are_explained(objectives, message):
    with pytest.raises(ConfigError, match=message):
        _model(**objectives)


def test_networks_that_lack_a_part_are_explained():
    config = tiny_config()
    with pytest.raises(ConfigError, match="build FaceCLIP with mask_token=True"):
        PretrainModel(FaceCLIP(config, mask_token=False), {"mim": _mim()})
    config.text = None
    with pytest.raises(ConfigError, match="'itc' needs captions, but the network has no text tower"):
        PretrainModel(FaceCLIP(config), {"itc": Contrastive()})


def _gradients(state, batch, counts):
    """Gradients of this process's share, averaged over processes as DDP does."""
    model = _model(itc=Contrastive(), mim=_mim()).double()
    model.load_state_dict(state)
    own = slice(rank() * counts, (rank() + 1) * counts)
    network = nn.parallel.DistributedDataParallel(model) if world_size() > 1 else model
    network({key: value[own] for key, value in batch.items()}).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_two_processes_have_the_gradients_of_one():
    model, batch = _model(itc=Contrastive(), mim=_mim()).double(), _batch()
    batch["image"] = batch["image"].double()
    batch["patch_mask"][:2] = False  # the first process has nothing to guess
    joint = _gradients(model.state_dict(), batch, 4)
    for shared in run_distributed(_gradients, 2, model.state_dict(), batch, 2):
        for name, gradient in joint.items():
            torch.testing.assert_close(
                shared[name], gradient, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
            )
