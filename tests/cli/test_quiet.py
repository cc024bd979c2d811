from __future__ import annotations

import logging
import warnings

import pytest

from farl_lightning.cli.quiet import _DropLines, _handlers, quiet


@pytest.fixture(autouse=True)
def _filters():
    with warnings.catch_warnings():
        quiet()
        yield


def shown(text: str) -> bool:
    record = logging.LogRecord("lightning.pytorch", logging.INFO, __file__, 1, text, None, None)
    return all(handler.filter(record) for handler in _handlers())


@pytest.mark.parametrize(
    "text",
    [
        "💡 Tip: For seamless cloud logging and experiment tracking, try installing",
        "GPU available: False, used: False",
        "[rank: 1] Seed set to 0",
        "-" * 100 + "\ndistributed_backend=gloo",
        "Restoring states from the checkpoint path at x.ckpt",
    ],
)
def test_advertising_and_repetition_is_dropped(text):
    assert not shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "`Trainer.fit` stopped: `max_steps=2` reached.",
        "Restored all states from the checkpoint at x.ckpt",
        "Initializing distributed: GLOBAL_RANK: 1, MEMBER: 2/2",
        "the checkpoint was trained on faces with image_size 64, the data has image_size 32; the data's is used",
    ],
)
def test_what_a_user_should_know_stays(text):
    assert shown(text)


def test_the_filter_is_installed_once():
    quiet()
    for handler in _handlers():
        assert sum(isinstance(known, _DropLines) for known in handler.filters) == 1


def test_warnings_of_libraries_are_dropped_and_the_users_own_stay():
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        text = "It is recommended to use `self.log('val/x', ..., sync_dist=True)` when logging on epoch level"
        warnings.warn(text, stacklevel=1)
        warnings.warn_explicit("old", DeprecationWarning, "x.py", 1, module="lightning.pytorch.trainer")
        warnings.warn_explicit("mine is old", FutureWarning, "y.py", 1, module="mytask")
        warnings.warn("12 of 40 shards cannot be read", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["mine is old", "12 of 40 shards cannot be read"]
