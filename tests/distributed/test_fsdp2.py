"""Sharded networks compute what whole ones do: values, gradients, clipping, and thirty steps of training."""

from __future__ import annotations

import copy
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank
from farl_lightning.functional.shards import whole
from farl_lightning.tasks.sharding import is_unit, policy, shard, wrap_policy
from farl_lightning.testing.distributed import RankError, run_distributed
from tests.distributed import sharded
from tests.tasks import faces, tiny


def mesh(data: int = 2, tensor: int = 1):
    return init_device_mesh("cpu", (data, tensor), mesh_dim_names=("data_parallel", "tensor_parallel"))


def own_batch() -> dict:
    """This process's half of a batch of eight."""
    pairs = tiny.Pairs(8, True)
    return tiny.collate_pretrain([pairs[index] for index in range(rank() * 4, rank() * 4 + 4)])


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole gradients, averaged over processes where the network is not sharded."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = whole(parameter.grad).clone()
            if not isinstance(parameter, DTensor):
                dist.all_reduce(grad)
                grad /= 2
            found[name] = grad
    return found


def step(model: nn.Module, batch: dict) -> float:
    """One backward pass; returns the loss."""
    torch.manual_seed(7)  # layers drop alike
    result = model(batch)
    result.loss.backward()
    return result.loss.item()


def pretrain_gradients() -> dict:
    """Gradients of a whole, a sharded and a sharded checkpointing network, and what was sharded how."""
    torch.set_num_threads(1)
    task = sharded.pretrain_task()
    torch.manual_seed(0)
    task.model.fit(tiny.Pairs(8, True).images)
    for parameter in task.model.parameters():
        dist.broadcast(parameter.detach(), 0)
    batch, found = own_batch(), {}
    for name in ("whole", "sharded", "checkpointing"):
        model = copy.deepcopy(task.model)
        model.clip.set_grad_checkpointing(name == "checkpointing")
        if name != "whole":
            shard(model, mesh())
            shard(model, mesh())  # once is enough, twice is harmless
        loss = step(model, batch)
        grads = gradients(model)
        norm = whole(clip_grad_norm_(model.parameters(), 0.1)).item()
        found[name] = {"loss": loss, "grads": grads, "norm": norm, "clipped": gradients(model)}
    parameters = dict(model.named_parameters())
    found["all_sharded"] = all(isinstance(parameter, DTensor) for parameter in parameters.values())
    found["share"] = sum(p.to_local().numel() for p in parameters.values()) / sum(
        p.numel() for p in parameters.values()
    )
    found["units"] = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    # without a backward pass, through the other entrances, before and after forward
    model.eval()
    with torch.no_grad():
        found["encoded"] = model.encode(batch["image"]).image_features
        found["expected"] = task.model.eval().encode(batch["image"]).image_features
    return found


def test_gradients_and_their_norm_are_those_of_the_whole_network():
    first, second = run_distributed(pretrain_gradients, 2)
    for found in (first, second):
        assert found["all_sharded"]
        assert found["share"] == pytest.approx(0.5, abs=0.1)
        torch.testing.assert_close(found["encoded"], found["expected"], rtol=1e-4, atol=1e-5)
        for name in ("sharded", "checkpointing"):
            expected, given = found["whole"], found[name]
            assert given["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert given["grads"].keys() == expected["grads"].keys()
            torch.testing.assert_close(given["grads"], expected["grads"], rtol=1e-4, atol=1e-6)
    for name in ("sharded", "checkpointing"):  # the norm of the averaged gradients, not of what one process holds
        expected = torch.linalg.vector_norm(torch.cat([g.flatten() for g in first["whole"]["grads"].values()]))
        assert first[name]["norm"] == second[name]["norm"] == pytest.approx(expected.item(), rel=1e-4)
        clipped = {key: grad * (0.1 / expected) for key, grad in first["whole"]["grads"].items()}
        torch.testing.assert_close(first[name]["clipped"], clipped, rtol=1e-3, atol=1e-6)
    blocks = [f"clip.image_encoder.vit.blocks.{i}" for i in (0, 1)]
    layers = [f"clip.text_encoder.model.text_model.encoder.layers.{i}" for i in (0, 1)]
    embeddings = [f"clip.text_encoder.model.text_model.embeddings.{name}_embedding" for name in ("token", "position")]
    heads = ["objectives.masked_image.head", "objectives.masked_image.head.blocks.0"]
    expected = {"", "clip.image_encoder", "clip.text_encoder", *blocks, *layers, *embeddings, *heads}
    assert set(first["units"]) == expected


def dense_gradients(tuning: str) -> dict:
    """The same for face parsing with a part of the encoder trained."""
    torch.set_num_threads(1)
    task = faces.parser(tuning=tuning)
    task.set_spec(faces.SPEC)
    batch = faces.collate([faces.Faces(4, source=False)[index] for index in (rank() * 2, rank() * 2 + 1)])
    found = {}
    for name in ("whole", "sharded"):
        model = copy.deepcopy(task.model)
        if name == "sharded":
            shard(model, mesh())
        torch.nn.functional.cross_entropy(model(batch["image"]), batch["mask"]).backward()
        found[name] = gradients(model)
        if name == "sharded":  # the statistics of this process's pictures, until the next pass takes the first one's
            before = {k: v.clone() for k, v in model.named_buffers() if k.endswith("running_mean")}
            model.eval()(batch["image"])
            found["before"], found["after"] = before, {k: dict(model.named_buffers())[k] for k in before}
    found["trained"] = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found["sharded_parameters"] = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return found


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_frozen_encoders_and_adapters_are_sharded_too(tuning):
    if tuning == "lora":
        pytest.importorskip("peft")
    first, second = run_distributed(dense_gradients, 2, tuning)
    assert first["sharded_parameters"]
    assert set(first["sharded"]) == set(first["trained"])
    assert any(name.startswith("encoder.") for name in first["trained"]) == (tuning == "lora")
    torch.testing.assert_close(first["sharded"], first["whole"], rtol=1e-3, atol=1e-6)
    assert any(not torch.equal(first["before"][key], second["before"][key]) for key in first["before"])
    assert first["after"].keys() == second["after"].keys() != set()
    for key, value in first["before"].items():
        assert torch.equal(first["after"][key], value)
        assert torch.equal(second["after"][key], value)


def half_precision() -> dict:
    """What a block computes with under bfloat16, and what the root does."""
    torch.set_num_threads(1)
    task = sharded.pretrain_task()
    task.model.fit(tiny.Pairs(8, True).images)
    seen: dict[str, torch.dtype] = {}
    block, text = task.model.clip.image_encoder.vit.blocks[1], task.model.clip.text_encoder
    shard(task.model, mesh(), "bf16-mixed")
    block.mlp.fc1.register_forward_pre_hook(lambda module, _: seen.update(block=module.weight.dtype))
    block.register_forward_hook(
        lambda _, __, out: seen.update(residual=(out[0] if isinstance(out, tuple) else out).dtype)
    )
    text.register_forward_hook(lambda *_: seen.update(root=task.model.clip.logit_scale.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.model(own_batch()).loss
    loss.backward()
    return {
        **seen,
        "stored": {parameter.dtype for parameter in task.model.parameters()},
        "grads": {parameter.grad.dtype for parameter in task.model.parameters() if parameter.grad is not None},
        "finite": bool(loss.isfinite()),
    }


def test_blocks_travel_in_half_precision_and_the_temperature_does_not():
    for found in run_distributed(half_precision, 2):
        assert found["finite"]
        assert found["block"] == torch.bfloat16
        assert found["residual"] == found["root"] == torch.float32
        assert found["stored"] == found["grads"] == {torch.float32}


def test_policies_of_the_trainers_precisions():
    assert policy("32-true", True).param_dtype is None
    assert policy("32-true", True).reduce_dtype is None
    assert policy("bf16-mixed", False).param_dtype is None
    assert policy("bf16-true", True).param_dtype is None
    assert policy("bf16-true", True).reduce_dtype == torch.float32


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5))


def shard_wrongly(kind: str) -> None:
    shard(Number() if kind == "number" else nn.Linear(2, 2), mesh(1, 2) if kind == "mesh" else mesh())


def test_what_cannot_be_sharded_is_said():
    with pytest.raises(RankError, match=r"ConfigError: FSDP2 cannot shard.*: temperature; make them of shape \(1,\)"):
        run_distributed(shard_wrongly, 2, "number")
    with pytest.raises(RankError, match="data_parallel_size to 2 "):
        run_distributed(shard_wrongly, 2, "mesh")
    assert issubclass(ConfigError, Exception)


def classic_units() -> list[str]:
    model = FullyShardedDataParallel(
        sharded.pretrain_task().model, auto_wrap_policy=wrap_policy, use_orig_params=True, device_id=torch.device("cpu")
    )
    names = [name for name, module in model.named_modules() if isinstance(module, FullyShardedDataParallel)]
    return [name.replace("_fsdp_wrapped_module.", "").removesuffix("._fsdp_wrapped_module") for name in names]


def test_classic_fsdp_wraps_the_same_units():
    model = sharded.pretrain_task().model
    expected = {name for name, module in model.named_modules() if is_unit(module)} | {""}
    assert set(run_distributed(classic_units, 2)[0]) == expected


def curve(strategy: str, steps: int) -> tuple[list[float], dict[str, float]]:
    """Losses of every step, and what validation found at the end."""
    losses = sharded.Curve()
    with tempfile.TemporaryDirectory() as folder:
        trainer = sharded.trainer(
            folder, strategy, max_steps=steps, val_check_interval=1.0, gradient_clip_val=0.5, callbacks=[losses]
        )
        trainer.fit(sharded.pretrain_task(), datamodule=sharded.RankedData())
    return losses.losses, {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def curves(steps: int) -> list:
    return [curve(strategy, steps) for strategy in ("ddp", "fsdp2")]


def test_thirty_steps_follow_ddp():
    for (losses, values), (expected, expected_values) in (pair[::-1] for pair in run_distributed(curves, 2, 30)):
        assert len(losses) == 30
        assert losses == pytest.approx(expected, abs=1e-4)
        assert max(losses) - min(losses) > 1  # something was learned, and could have drifted apart
        assert values == pytest.approx(expected_values, abs=1e-4)
