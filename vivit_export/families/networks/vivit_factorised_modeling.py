"""The factorised ViViTs of the paper (arXiv:2103.15691, models 2, 3 and 4), which transformers lacks.

They are made of transformers' own ViViT modules, so that the graph has the forms that the rewrites look for, and they
compute what scenic's Flax modules compute: ``factorisation`` of the config says which of the three.

- ``encoder`` (model 2): one stack of blocks over the tokens of each time step, which ends in that step's class token; a
  second stack over those. Classified from the second class token.
- ``self_attention`` (model 3): each block attends over time and then over space (or the other way round:
  ``attention_order``). Classified from the mean of all tokens.
- ``dot_product`` (model 4): in each block, half of the heads attend over time and half over space. Classified from the
  mean of all tokens.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.vivit.modeling_vivit import (
    VivitAttention,
    VivitLayer,
    VivitMLP,
    VivitPreTrainedModel,
    VivitTubeletEmbeddings,
    eager_attention_forward,
)

from vivit_export.families.vivit_factorised import ATTENTION_ORDERS, FACTORISATIONS


class VivitFactorisedConfig(transformers.VivitConfig):  # type: ignore[misc]  # transformers is not typed
    """Fields of ``config.json``: those of ``VivitConfig``, and these.

    ``num_hidden_layers``, ``num_attention_heads`` and ``intermediate_size`` are those of the first stack.

    Attributes:
        factorisation: ``encoder``, ``self_attention`` or ``dot_product``.
        attention_order: of ``self_attention``: ``time_space`` or ``space_time``.
        temporal_num_hidden_layers: blocks of the second stack of ``encoder``.
        temporal_num_attention_heads: its heads; None: as many as the first has.
        temporal_intermediate_size: width inside its MLPs; None: that of the first.
    """

    model_type = "vivit_factorised"

    factorisation: str = "encoder"
    attention_order: str = "time_space"
    temporal_num_hidden_layers: int = 4
    temporal_num_attention_heads: int | None = None
    temporal_intermediate_size: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Time steps of a clip, and tokens of a step."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        t, h, w = self.tubelet_size
        return self.num_frames // t, (height // h) * (width // w)

    def temporal(self) -> VivitFactorisedConfig:
        """Return the config with the sizes of the second stack's blocks."""
        found = copy.copy(self)
        found.num_attention_heads = self.temporal_num_attention_heads or self.num_attention_heads
        found.intermediate_size = self.temporal_intermediate_size or self.intermediate_size
        return found


class _ClassToken(nn.Module):
    """Put a class token in front of the tokens, and add positions."""

    def __init__(self, num_tokens: int, hidden: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, hidden))
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_tokens + 1, hidden))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        token = self.cls_token.expand(tokens.shape[0], -1, -1)
        return torch.cat((token, tokens), dim=1) + self.position_embeddings


class _StepEmbeddings(_ClassToken):
    """Turn pixels into the tokens of each time step: (B, T, 3, H, W) to (B t, 1 + hw, hidden)."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config.grid[1], config.hidden_size)
        self.patch_embeddings = VivitTubeletEmbeddings(config)
        self._grid = config.grid

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.patch_embeddings(pixel_values)
        steps, places = self._grid
        return super().forward(tokens.reshape(pixel_values.shape[0] * steps, places, tokens.shape[-1]))


class _ClipEmbeddings(nn.Module):
    """Turn pixels into the tokens of a clip, without a class token: (B, T, 3, H, W) to (B, t hw, hidden)."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__()
        steps, places = config.grid
        self.patch_embeddings = VivitTubeletEmbeddings(config)
        self.position_embeddings = nn.Parameter(torch.zeros(1, steps * places, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.patch_embeddings(pixel_values) + self.position_embeddings
        return tokens


class _Stack(nn.Module):
    """Blocks of joint attention in a row, and the LayerNorm after them."""

    def __init__(self, config: VivitFactorisedConfig, sizes: VivitFactorisedConfig, num_layers: int) -> None:
        super().__init__()
        layers = [VivitLayer(sizes) for _ in range(num_layers)]
        for layer in layers:
            layer.attention.config = config  # read again at each call: how to attend is set there, after loading too
        self.layers = nn.ModuleList(layers)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            tokens = layer(tokens)
        normed: torch.Tensor = self.layernorm(tokens)
        return normed


class _TemporalStack(_Stack):
    """The second stack of a factorised encoder: (B, t, hidden) to (B, 1 + t, hidden)."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config, config.temporal(), config.temporal_num_hidden_layers)
        self.embeddings = _ClassToken(config.grid[0], config.hidden_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(self.embeddings(tokens))


class _SelfAttentionLayer(nn.Module):
    """A block of model 3: attention over time, attention over space, and an MLP, each after a LayerNorm."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self._grid, self._order = config.grid, config.attention_order
        self.temporal_layernorm = nn.LayerNorm(hidden, eps=eps)
        self.temporal_attention = VivitAttention(config)
        self.spatial_layernorm = nn.LayerNorm(hidden, eps=eps)
        self.spatial_attention = VivitAttention(config)
        self.layernorm_after = nn.LayerNorm(hidden, eps=eps)
        self.mlp = VivitMLP(config)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        first, second = (self._over_time, self._over_space)[:: 1 if self._order == "time_space" else -1]
        tokens = second(first(tokens))
        mixed: torch.Tensor = self.mlp(self.layernorm_after(tokens))
        return mixed + tokens

    def _over_space(self, tokens: torch.Tensor) -> torch.Tensor:
        (_, places), hidden = self._grid, tokens.shape[-1]
        rows = tokens.reshape(-1, places, hidden)
        attended: torch.Tensor = self.spatial_attention(self.spatial_layernorm(rows))[0]
        return (attended + rows).reshape(tokens.shape)

    def _over_time(self, tokens: torch.Tensor) -> torch.Tensor:
        (steps, places), hidden = self._grid, tokens.shape[-1]
        rows = tokens.reshape(-1, steps, places, hidden).transpose(1, 2).reshape(-1, steps, hidden)
        attended: torch.Tensor = self.temporal_attention(self.temporal_layernorm(rows))[0]
        return (attended + rows).reshape(-1, places, steps, hidden).transpose(1, 2).reshape(tokens.shape)


class _Attend(nn.Module):
    """Softmax(Q K^T / sqrt(size)) V, in a module of its own, so that the nodes of each have names of their own."""

    is_causal = False

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Q, K and V are (rows, heads, tokens, size); the result is (rows, tokens, heads, size)."""
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        result: torch.Tensor = attend(self, query, key, value, None, scaling=query.shape[-1] ** -0.5)[0]
        return result


class _DotProductAttention(VivitAttention):  # type: ignore[misc]
    """The attention of model 4: the first half of the heads attends over time, the second over space."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config)
        if config.num_attention_heads % 2:
            raise ValueError(f"num_attention_heads={config.num_attention_heads} must be even for dot_product")
        self._grid = config.grid
        self.temporal = _Attend(config)
        self.spatial = _Attend(config)

    def forward(self, tokens: torch.Tensor, *_mask: object, **_options: object) -> tuple[torch.Tensor, None]:
        steps, places = self._grid
        half, size = self.num_attention_heads // 2, self.head_dim
        projected = [
            project(tokens).reshape(-1, steps, places, 2, half, size)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        ]
        over_time = self.temporal(
            *(x[..., 0, :, :].permute(0, 2, 3, 1, 4).reshape(-1, half, steps, size) for x in projected)
        )
        over_space = self.spatial(*(x[..., 1, :, :].transpose(2, 3).reshape(-1, half, places, size) for x in projected))
        over_time = over_time.reshape(-1, places, steps, half, size).transpose(1, 2)
        both = torch.cat((over_time, over_space.reshape(-1, steps, places, half, size)), dim=3)
        result: torch.Tensor = self.o_proj(both.reshape(tokens.shape))
        return result, None


class _DotProductLayer(VivitLayer):  # type: ignore[misc]
    """A block of model 4."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config)
        self.attention = _DotProductAttention(config)


class VivitFactorisedPreTrainedModel(VivitPreTrainedModel):  # type: ignore[misc]
    """What the networks with and without a head share."""

    config_class = VivitFactorisedConfig
    config: VivitFactorisedConfig
    _no_split_modules = ("VivitLayer", "_SelfAttentionLayer", "_DotProductLayer")


class VivitFactorisedModel(VivitFactorisedPreTrainedModel):
    """The network without a head."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config)
        for name, known in (("factorisation", FACTORISATIONS), ("attention_order", ATTENTION_ORDERS)):
            if getattr(config, name) not in known:
                raise ValueError(f"{name}={getattr(config, name)!r} is not one of {', '.join(known)}")
        if config.factorisation == "encoder":
            self.embeddings: nn.Module = _StepEmbeddings(config)
            self.spatial = _Stack(config, config, config.num_hidden_layers)
            self.temporal = _TemporalStack(config)
        else:
            block = _SelfAttentionLayer if config.factorisation == "self_attention" else _DotProductLayer
            self.embeddings = _ClipEmbeddings(config)
            self.layers = nn.ModuleList([block(config) for _ in range(config.num_hidden_layers)])
            self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Run the network.

        Args:
            pixel_values: (B, T, 3, H, W), in the dtype of the weights.

        Returns:
            ``last_hidden_state``: for ``encoder`` (B, 1 + t, hidden), else (B, t hw, hidden); and ``pooler_output``
            (B, hidden), which the head reads: the class token, or the mean of all tokens.
        """
        tokens = self.embeddings(pixel_values)
        if self.config.factorisation == "encoder":
            shape = (pixel_values.shape[0], self.config.grid[0], self.config.hidden_size)
            steps = self.spatial(tokens)[:, 0].reshape(shape)
            last = self.temporal(steps)
            return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=last[:, 0])
        for layer in self.layers:
            tokens = layer(tokens)
        last = self.layernorm(tokens)
        return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=last.mean(dim=1))


class VivitFactorisedForVideoClassification(VivitFactorisedPreTrainedModel):
    """The network with a Linear on top."""

    def __init__(self, config: VivitFactorisedConfig) -> None:
        super().__init__(config)
        self.vivit = VivitFactorisedModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Run the network; ``logits`` is (B, num_labels). See `VivitFactorisedModel.forward`."""
        return ImageClassifierOutput(logits=self.classifier(self.vivit(pixel_values).pooler_output))


def register() -> None:
    """Let transformers' ``Auto`` classes know the networks; without it they need the classes above by name."""
    transformers.AutoConfig.register(VivitFactorisedConfig.model_type, VivitFactorisedConfig, exist_ok=True)
    transformers.AutoModel.register(VivitFactorisedConfig, VivitFactorisedModel, exist_ok=True)
    transformers.AutoModelForVideoClassification.register(
        VivitFactorisedConfig, VivitFactorisedForVideoClassification, exist_ok=True
    )
