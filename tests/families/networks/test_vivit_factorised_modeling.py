"""The networks compute what scenic's Flax modules computed: recorded logits, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenic_trees
import torch
import transformers

from vivit_export.export.convert import convert_scenic
from vivit_export.families.networks.vivit_factorised_modeling import (
    VivitFactorisedConfig,
    VivitFactorisedForVideoClassification,
    VivitFactorisedModel,
    register,
)

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_frames": 4,
    "image_size": [16, 24],
    "tubelet_size": [2, 8, 8],
    "temporal_num_hidden_layers": 1,
    "temporal_num_attention_heads": 2,
    "temporal_intermediate_size": 20,
    "num_labels": 3,
}
FACTORISED = scenic_trees.KINDS[1:]


@pytest.fixture(scope="module", params=scenic_trees.KINDS)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    tree = scenic_trees.tree_of(scenic_trees.flat_parameters(request.param))
    (folder / "checkpoint").write_bytes(scenic_trees.flax_bytes({"optimizer": {"target": tree}, "global_step": 3}))
    convert_scenic(folder / "checkpoint", folder / "converted", num_frames=scenic_trees.FRAMES)
    return request.param, folder / "converted"


# transformers' "eager" computes its softmax in float32, whatever the rest is.
@pytest.mark.parametrize(("attention", "most"), [("sdpa", 1e-9), ("eager", 2e-6)])
@torch.inference_mode()
def test_the_logits_are_those_of_scenics_flax(converted: tuple[str, Path], attention: str, most: float) -> None:
    kind, folder = converted
    register()
    network, told = transformers.AutoModelForVideoClassification.from_pretrained(
        folder, dtype=torch.float64, attn_implementation=attention, output_loading_info=True
    )
    assert not any(told.values()), told
    pixels = torch.from_numpy(scenic_trees.clips()).permute(0, 1, 4, 2, 3)
    logits = network.eval()(pixels).logits.numpy()
    np.testing.assert_allclose(logits, scenic_trees.recorded_logits(kind), rtol=0, atol=most)


def random(kind: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    network = VivitFactorisedForVideoClassification(VivitFactorisedConfig(factorisation=kind, **{**TINY, **fields}))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


@pytest.mark.parametrize("kind", FACTORISED)
@torch.inference_mode()
def test_what_is_saved_is_loaded_without_a_class_by_name(kind: str, tmp_path: Path) -> None:
    network = random(kind)
    pixels = torch.rand(3, 4, 3, 16, 24, dtype=torch.float64)
    network.save_pretrained(tmp_path)
    register()
    again = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert type(again) is VivitFactorisedForVideoClassification
    torch.testing.assert_close(again(pixels).logits, network(pixels).logits, rtol=0, atol=1e-12)
    encoder = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert type(encoder) is VivitFactorisedModel
    pooled = encoder(pixels).pooler_output
    torch.testing.assert_close(network.classifier(pooled), network(pixels).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", FACTORISED)
@torch.inference_mode()
def test_clips_of_a_batch_do_not_mix(kind: str) -> None:
    network = random(kind)
    pixels = torch.rand(3, 4, 3, 16, 24, dtype=torch.float64)
    alone = torch.cat([network(clip[None]).logits for clip in pixels])
    torch.testing.assert_close(network(pixels).logits, alone, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_the_order_of_the_attentions_matters() -> None:
    pixels = torch.rand(1, 4, 3, 16, 24, dtype=torch.float64)
    first, second = (random("self_attention", attention_order=order)(pixels) for order in ("time_space", "space_time"))
    assert (first.logits - second.logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"factorisation": "tokens"}, "factorisation='tokens' is not one of encoder, self_attention, dot_product"),
        ({"attention_order": "space"}, "attention_order='space' is not one of time_space, space_time"),
        ({"factorisation": "dot_product", "num_attention_heads": 1}, "num_attention_heads=1 must be even"),
    ],
)
def test_a_config_of_no_network_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        VivitFactorisedModel(VivitFactorisedConfig(**{**TINY, **fields}))
