"""The margin head: against the plain softmax, sharded over two processes against one, saved and loaded, in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import rank, world_size
from farl_lightning.functional.margin import margin_logits
from farl_lightning.models.heads.class_rows import _BLOCK, ClassRows
from farl_lightning.models.heads.margin import MarginHead, sharded_rows
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.testing.memory import peak_bytes

PEOPLE, WIDTH = 11, 6


def _batch(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, PEOPLE, (count,), generator=generator)
    labels[2] = -1
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=generator), labels


def _head(kind="arcface", sharded=False, chunk=1 << 24):
    torch.manual_seed(5)
    margin = 0.5 if kind == "arcface" else 0.35
    return MarginHead(WIDTH, PEOPLE, kind, margin, 16.0, sharded, chunk=chunk).double()


def _plain(head, embeddings, labels, kind):
    """The whole matrix of logits, and the library's cross entropy."""
    cosine = F.normalize(embeddings, dim=1) @ F.normalize(head.centres.weight, dim=1).T
    margin = head.margin
    logits = margin_logits(cosine, labels, kind, margin.size, margin.scale)
    return F.cross_entropy(logits, labels, ignore_index=-1)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize("chunk", [1, 8 * 4, 1 << 24])
def test_chunks_give_the_plain_softmax_and_its_gradients(kind, chunk):
    embeddings, labels = _batch()
    head, reference = _head(kind, chunk=chunk), _head(kind)
    own, other = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    loss, expected = head(own, labels), _plain(reference, other, labels, kind)
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(head.centres.weight.grad, reference.centres.weight.grad, rtol=0, atol=1e-11)


def test_half_precision_is_computed_in_float32():
    embeddings, labels = _batch()
    head = _head().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head(embeddings.bfloat16(), labels)
        loss.backward()
    exact = _head()(embeddings.bfloat16().double(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert head.centres.weight.grad.dtype == torch.float32
    halves = _head().bfloat16()
    halves(embeddings.bfloat16(), labels).backward()
    assert halves.centres.weight.grad.dtype == torch.bfloat16


def test_no_known_label_is_no_loss():
    embeddings, _ = _batch(3)
    head = _head()
    loss = head(embeddings.requires_grad_(), torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().max() == 0
    assert head.centres.weight.grad.abs().max() == 0


@pytest.mark.parametrize("sharded", [False, True])
def test_what_does_not_fit_is_named(sharded):
    embeddings, labels = _batch()
    with pytest.raises(ConfigError, match=r"embeddings \(8, 5\) must be \(B, 6\)"):
        _head(sharded=sharded)(embeddings[:, :5], labels)
    with pytest.raises(ConfigError, match="labels from -1 to 11 do not fit 11 identities"):
        _head(sharded=sharded)(embeddings, labels.clamp(max=3).index_fill(0, torch.tensor([1]), 11))
    with pytest.raises(ConfigError, match="0 classes"):
        MarginHead(4, 0)
    with pytest.raises(ConfigError, match="Did you mean 'cosface'"):
        MarginHead(4, 2, "cosfase")


def _step(kind, sharded, counts, chunk):
    """Return the loss, gradients of own embeddings and centres, and the saved matrix."""
    embeddings, labels = _batch(8)
    first = sum(counts[: rank()])
    share = slice(first, first + counts[rank()])
    head, own = _head(kind, sharded, chunk), embeddings[share].clone().requires_grad_()
    loss = head(own, labels[share])
    loss.backward()
    return loss.detach(), own.grad, head.centres.weight.grad, head.state_dict()["centres.weight"]


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize(("counts", "chunk"), [((4, 4), 1 << 24), ((2, 6), 17), ((8, 0), 1 << 24), ((3, 1, 4), 17)])
def test_sharded_gradients_equal_one_process(kind, counts, chunk):
    loss, grad, centres, saved = _step(kind, False, (8,), 1 << 24)
    parts = list(zip(*run_distributed(_step, len(counts), kind, True, counts, chunk), strict=True))
    for own in parts[0]:  # every process has the loss of the joint batch
        torch.testing.assert_close(own, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(parts[1]) / len(counts), grad, rtol=0, atol=1e-12)  # as DDP averages
    torch.testing.assert_close(torch.cat(parts[2]), centres, rtol=0, atol=1e-12)  # own rows, never averaged
    torch.testing.assert_close(parts[3][0], saved, rtol=0, atol=0)  # process 0 saves all rows


@pytest.mark.parametrize("counts", [(4, 4), (7, 1), (8, 0)])
def test_whole_centres_average_to_one_process(counts):
    loss, grad, centres, _ = _step("arcface", False, (8,), 1 << 24)
    parts = list(zip(*run_distributed(_step, 2, "arcface", False, counts, 1 << 24), strict=True))
    torch.testing.assert_close(torch.stack(parts[0]).mean(), loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(parts[1]) / 2, grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(parts[2]).mean(0), centres, rtol=0, atol=1e-12)


class _Network(torch.nn.Module):
    """An encoder of one layer, and the head."""

    def __init__(self, sharded):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = torch.nn.Linear(WIDTH, WIDTH).double()
        self.head = _head("cosface", sharded)

    def forward(self, images, labels):
        return self.head(self.encoder(images), labels)


def _train(counts, sharded):
    """Train for three steps, under DDP where there are processes, and return the weights."""
    network = trained = _Network(sharded)
    if world_size() > 1:
        names = list(sharded_rows(network))
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, names)
        trained = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    first = sum(counts[: rank()])
    for step in range(3):
        images, labels = _batch(8, seed=step)
        optimizer.zero_grad()
        share = slice(first, first + counts[rank()])
        trained(images[share], labels[share]).backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("sharded", [False, True])
def test_training_under_ddp_is_training_on_one_process(sharded):
    expected = _train((8,), False)
    assert not torch.equal(expected["head.centres.weight"], _head("cosface").centres.weight)
    first, other = run_distributed(_train, 2, (5, 3), sharded)
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-9)  # AdamW enlarges roundings
    assert torch.equal(first["encoder.weight"], other["encoder.weight"])


def _more_processes_than_people():
    torch.manual_seed(0)
    head = MarginHead(4, 2, scale=8.0, sharded=True)
    loss = head(torch.ones(1, 4), torch.tensor([rank() % 2]))
    loss.backward()
    return loss.item(), len(head.centres.weight)


def test_a_process_without_a_person_takes_part():
    answers = run_distributed(_more_processes_than_people, 3)
    assert sorted(rows for _, rows in answers) == [0, 1, 1]
    assert len({loss for loss, _ in answers}) == 1


def test_rows_are_drawn_alike_however_they_are_shared_out():
    answers = run_distributed(_drawn, 2)
    whole = _drawn()
    torch.testing.assert_close(torch.cat(answers), whole, rtol=0, atol=0)
    assert whole.std().item() == pytest.approx(0.01, rel=0.02)


def _drawn():
    torch.manual_seed(2)
    rows = ClassRows(_BLOCK + 700, 3, sharded=True)
    rows.shard()
    return rows.weight.detach()


def _load(state):
    rows = ClassRows(PEOPLE, WIDTH, sharded=True)
    rows.load_state_dict(state)
    first, kept = rows.first, rows.weight.detach().clone()
    rows.load_state_dict({"weight": -kept})  # own rows are taken as they are
    return first, kept, rows.weight.detach(), list(sharded_rows(torch.nn.ModuleDict({"a": rows})))


def test_each_process_loads_its_rows_of_a_whole_matrix():
    values = torch.randn(PEOPLE, WIDTH)
    answers = run_distributed(_load, 2, {"weight": values})
    assert [answer[0] for answer in answers] == [0, PEOPLE // 2]
    assert torch.equal(torch.cat([answer[1] for answer in answers]), values)
    assert torch.equal(torch.cat([answer[2] for answer in answers]), -values)
    assert answers[0][3] == ["a.weight"]


def test_one_process_reads_what_many_saved_and_back():
    rows = ClassRows(PEOPLE, WIDTH, sharded=True)
    other = ClassRows(PEOPLE, WIDTH)
    other.load_state_dict(rows.state_dict())
    assert torch.equal(rows(), other())
    assert sharded_rows(other) == {}


def _meet_later(made, values):
    """A matrix that was made before processes met."""
    rows = made
    with pytest.raises(ConfigError, match=r"shared out to 1 processes, and now there are 2"):
        rows()
    if values is not None:
        rows.load_state_dict({"weight": values})
    rows.shard()
    assert world_size() == 2
    return rows.weight.detach()


@pytest.mark.parametrize("loaded", [False, True])
def test_a_matrix_made_before_processes_met_is_shared_out_later(loaded):
    torch.manual_seed(3)
    rows = ClassRows(PEOPLE, WIDTH, sharded=True)
    values = torch.randn(PEOPLE, WIDTH) if loaded else None
    answers = run_distributed(_meet_later, 2, rows, values)
    assert torch.equal(torch.cat(answers), values if loaded else rows().detach())


def test_a_sharded_matrix_costs_nothing_before_processes_meet():
    rows = ClassRows(4_000_000, 512, sharded=True)  # 8 GB if it were drawn
    assert rows.weight.numel() == 4_000_000 * 512


def test_memory_is_that_of_centres_gradient_and_a_chunk():
    people, width, faces = 20_000, 32, 64
    head = MarginHead(width, people, chunk=1 << 16)
    embeddings, labels = torch.randn(faces, width, requires_grad=True), torch.arange(faces)
    peak = peak_bytes(lambda: head(embeddings, labels).backward())
    gradient, logits = 4 * people * width, 4 * people * faces
    assert peak < gradient + 10 * 4 * (1 << 16)
    assert peak < 2 * (gradient + logits) / 2  # less than one copy of all logits beside the gradient
