"""The text tower: pooling, trimming, initialisation."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.models.config import TextEncoderConfig
from farl_lightning.models.text_encoder import TextEncoder

_SIZES = {"context_length": 20, "vocab_size": 50, "width": 24, "depth": 2, "heads": 3, "eos_token_id": 49}


def _encoder(**changes):
    torch.manual_seed(0)
    return TextEncoder(TextEncoderConfig(**(_SIZES | changes)), 16).double()


def _captions(*lengths, context=20):
    text = torch.zeros(len(lengths), context, dtype=torch.int64)
    generator = torch.Generator().manual_seed(3)
    for row, length in zip(text, lengths, strict=True):
        row[: length - 1] = torch.randint(1, 49, (length - 1,), generator=generator)
        row[length - 1] = 49
    return text


def _slow(encoder, text):
    """CLIP's text transformer, token by token of its definition."""
    text_model = encoder.model.text_model
    x = (
        text_model.embeddings.token_embedding.weight[text]
        + text_model.embeddings.position_embedding.weight[: text.shape[1]]
    )
    hidden = torch.full((text.shape[1],) * 2, float("-inf"), dtype=x.dtype).triu(1)
    for layer in text_model.encoder.layers:
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        split = lambda y: y.unflatten(-1, (3, -1)).transpose(1, 2)  # noqa: E731
        query, key, value = (split(p(normed)) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5 + hidden
        x = x + attention.out_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        wide = layer.mlp.fc1(layer.layer_norm2(x))
        x = x + layer.mlp.fc2(wide * torch.sigmoid(1.702 * wide))
    pooled = text_model.final_layer_norm(x)[torch.arange(len(x)), text.argmax(-1)]
    return pooled @ encoder.model.text_projection.weight.T


def test_values_and_gradients_against_the_slow_way():
    encoder, text = _encoder(), _captions(4, 9, 2)
    results = []
    for run in (encoder, lambda text: _slow(encoder, text)):
        encoder.zero_grad()
        output = run(text)
        output.pow(3).sum().backward()
        results.append([output.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())])
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours, slow)


def test_trimming_shortens_the_work_and_changes_nothing():
    text = _captions(4, 9, 2)
    trimmed, whole = _encoder(), _encoder(trim_padding=False)
    seen = []
    trimmed.model.text_model.encoder.layers[0].mlp.register_forward_hook(
        lambda m, given, out: seen.append(given[0].shape[1])
    )
    torch.testing.assert_close(trimmed(text), whole(text))
    assert seen == [16], "nine columns, rounded up to a multiple of eight"
    trimmed(_captions(20))
    assert seen[-1] == 20


def test_what_follows_the_end_mark_does_not_matter():
    encoder, text = _encoder(), _captions(5, 7)
    noisy = text.clone()
    noisy[0, 6:] = 11
    noisy[1, 9] = 49  # a second end mark
    torch.testing.assert_close(encoder(noisy), encoder(text))


def test_rows_of_padding_are_harmless():
    encoder, text = _encoder(), _captions(5, 7)
    text[1] = 0
    assert encoder(text).isfinite().all()
    assert encoder(torch.zeros_like(text)).isfinite().all()


def test_pools_at_the_vocabularys_own_end_mark():
    """The library's default end mark would silently pool the first token."""
    encoder = _encoder()
    assert encoder.model.config.eos_token_id == 49
    assert not torch.allclose(encoder(_captions(5)), encoder(_captions(6)))


def test_fused_attention_is_used():
    assert _encoder().model.config._attn_implementation == "sdpa"


def test_checkpointing_gives_the_same_gradients():
    text, grads = _captions(4, 9), []
    for enable in (False, True):
        encoder = _encoder().train()
        encoder.set_grad_checkpointing(True)
        encoder.set_grad_checkpointing(enable)
        calls = []
        encoder.model.text_model.encoder.layers[0].mlp.register_forward_pre_hook(
            lambda *args, calls=calls: calls.append(1)
        )
        encoder(text).square().sum().backward()
        assert len(calls) == 1 + enable
        grads.append([parameter.grad for parameter in encoder.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_default_size_is_clips():
    with torch.device("meta"):
        encoder = TextEncoder(TextEncoderConfig(), 512)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 149_620_737 - 86_192_640 - 1


def test_fresh_weights_are_openais():
    encoder = _encoder(width=192, depth=8, vocab_size=500, context_length=64)
    text, layer = encoder.model.text_model, encoder.model.text_model.encoder.layers[3]
    expected = {
        text.embeddings.token_embedding.weight: 0.02,
        text.embeddings.position_embedding.weight: 0.01,
        encoder.model.text_projection.weight: 192**-0.5,
        layer.self_attn.q_proj.weight: 192**-0.5,
        layer.self_attn.v_proj.weight: 192**-0.5,
        layer.self_attn.out_proj.weight: 192**-0.5 / 4,
        layer.mlp.fc1.weight: 384**-0.5,
        layer.mlp.fc2.weight: 192**-0.5 / 4,
    }
    for parameter, std in expected.items():
        assert float(parameter.detach().std()) == pytest.approx(std, rel=0.05)
    assert not layer.self_attn.out_proj.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 5}, "text width 24 is not a multiple of its 5 heads"), ({"eos_token_id": 50}, "allowed: 0 to 49")],
)
def test_impossible_sizes(changes, message):
    with pytest.raises(ConfigError, match=message):
        _encoder(**changes)


def test_compiles_and_autocasts():
    encoder, text = _encoder().float(), _captions(4, 9)
    compiled = torch.compile(encoder, backend="eager")
    torch.testing.assert_close(compiled(text), encoder(text))
    torch.testing.assert_close(compiled(_captions(14, 3)), encoder(_captions(14, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(text)
    assert 0 < (rough.float() - encoder(text)).norm() / encoder(text).norm() < 0.05
