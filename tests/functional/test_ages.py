"""Years off outputs: as the methods that are trained read them, and from plain settings alone."""

from __future__ import annotations

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.functional.ages import age_decoder, counted_age, expected_age, scaled_age
from farl_lightning.losses import AgeDistribution, AgeExpectation, AgeMeanVariance, AgeOrdinal, AgeRegression


def test_by_hand():
    shares = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(expected_age(shares.log(), 20), torch.tensor([20.75], dtype=torch.float64))
    logits = torch.tensor([[3.0, 0.1, -1.0]])
    assert counted_age(logits, 10).tolist() == [12]
    torch.testing.assert_close(counted_age(logits, 10, soft=True), 10 + logits.sigmoid().sum(1))
    assert scaled_age(torch.tensor([[0.5]]), 10, 50).tolist() == [35]
    assert scaled_age(torch.tensor([[0.5]]), 10, 50, scale=2.0).tolist() == [31]
    assert expected_age(torch.zeros(1, 3).half(), 0).dtype == torch.float32


@pytest.mark.parametrize(
    "method",
    [
        AgeExpectation(),
        AgeExpectation(5, 30),
        AgeMeanVariance(5, 30, mean_weight=0.1),
        AgeDistribution(5, 30, sigma=3.0),
        AgeOrdinal(5, 30),
        AgeOrdinal(5, 30, shared=False, soft=True),
        AgeRegression(5, 30),
        AgeRegression(5, 30, scale=7.0),
    ],
)
def test_plain_settings_read_as_the_method_does(method):
    decoder = age_decoder(method.to_config())
    assert decoder.num_outputs == method.num_outputs
    outputs = torch.randn(4, method.num_outputs, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoder.decode(outputs), method.decode(outputs), rtol=0, atol=0)


def test_nothing_that_a_file_names_is_run():
    assert age_decoder(None).num_outputs == AgeExpectation().num_outputs
    assert age_decoder({"class_path": "farl_lightning.losses.AgeOrdinal"}).num_outputs == AgeOrdinal().num_outputs
    for path in ("os.system", "mine.AgeOrdinal", "AgeOrdinall"):
        with pytest.raises(ConfigError, match=rf"age method '{path}' is not one of AgeExpectation, .*pass the method"):
            age_decoder({"class_path": path, "init_args": {}})
    with pytest.raises(ConfigError, match=r"AgeRegression cannot be read with \{'sigma': 2\}"):
        age_decoder({"class_path": "AgeRegression", "init_args": {"sigma": 2}})
