"""CLIP's text transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from farl_lightning.errors import ConfigError
from farl_lightning.layers.activation import QuickGELU
from farl_lightning.models.config import TextEncoderConfig


class TextEncoder(nn.Module):
    """Text tower of CLIP (Radford et al., arXiv:2103.00020), around ``CLIPTextModelWithProjection``.

    FaRL's text tower has the same structure. Fresh weights are drawn as OpenAI's code does.

    Args:
        config: Sizes.
        embed_dim: Channels of the shared space.

    Raises:
        ConfigError: If the sizes do not fit together.
    """

    def __init__(self, config: TextEncoderConfig, embed_dim: int) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.model = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=4 * config.width,
                projection_dim=embed_dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context_length,
                hidden_act="quick_gelu",
                layer_norm_eps=1e-5,
                eos_token_id=config.eos_token_id,  # its default pools at the wrong token for other vocabularies
                bos_token_id=None,
                pad_token_id=None,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )
        for layer in self.model.text_model.encoder.layers:
            layer.mlp.activation_fn = QuickGELU()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights: normal, with OpenAI's standard deviations; biases are zero."""
        width, depth = self.config.width, self.config.depth
        text = self.model.text_model
        nn.init.normal_(text.embeddings.token_embedding.weight, std=0.02)
        nn.init.normal_(text.embeddings.position_embedding.weight, std=0.01)
        nn.init.normal_(self.model.text_projection.weight, std=width**-0.5)
        residual = width**-0.5 * (2 * depth) ** -0.5
        for layer in text.encoder.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
                _init_linear(linear, width**-0.5)
            _init_linear(attention.out_proj, residual)
            _init_linear(mlp.fc1, (2 * width) ** -0.5)
            _init_linear(mlp.fc2, residual)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        verb = "enable" if enable else "disable"
        arguments: tuple[dict[str, bool], ...] = ({"use_reentrant": False},) if enable else ()
        switch = getattr(self.model, f"activation_checkpointing_{verb}", None)  # the name since transformers 5
        (switch or getattr(self.model, f"gradient_checkpointing_{verb}"))(*arguments)

    def forward(self, text: Tensor) -> Tensor:
        """Encode captions.

        Args:
            text: (B, L) int64 token ids, L at most ``context_length``; each row holds ``eos_token_id``.

        Returns:
            (B, embed_dim) features, not normalised.
        """
        if self.config.trim_padding:
            text = text[:, : _used_length(text, self.config.eos_token_id)]
        features: Tensor = self.model(input_ids=text).text_embeds
        return features


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _used_length(text: Tensor, eos_token_id: int) -> int:
    """Columns up to the last first-end-mark of the batch, rounded up to 8 so that few shapes occur."""
    ends = (text == eos_token_id).int()
    if not bool(ends.any()):
        return text.shape[1]
    length = int(ends.argmax(dim=1).max()) + 1
    return min(-8 * (-length // 8), text.shape[1])


def _init_linear(linear: nn.Linear, std: float) -> None:
    nn.init.normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)


def _check(config: TextEncoderConfig) -> None:
    if config.width % config.heads:
        raise ConfigError(f"text width {config.width} is not a multiple of its {config.heads} heads")
    if not 0 <= config.eos_token_id < config.vocab_size:
        raise ConfigError(
            f"text eos_token_id {config.eos_token_id} is outside of the vocabulary; allowed: 0 to "
            f"{config.vocab_size - 1}"
        )
