"""The warning of a training in bfloat16 on a processor that is slower with it."""

import logging

import pytest
import pytorch_lightning as pl

from ecgdiff.lightning import bfloat16


@pytest.mark.parametrize(
    ("precision", "times", "warned"),
    [("bf16-mixed", 180.0, True), ("bf16-mixed", 0.3, False), ("32-true", 180.0, False)],
)
def test_only_slow_bfloat16_warns(
    precision: str,
    times: float,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bfloat16, "slowdown", lambda: times)
    trainer = pl.Trainer(accelerator="cpu", precision=precision, logger=False, barebones=True)
    with caplog.at_level(logging.WARNING, logger=bfloat16.__name__):
        bfloat16.warn_if_slow(trainer)
    messages = [r.message for r in caplog.records if r.name == bfloat16.__name__]
    assert len(messages) == warned
    assert all("180 times" in m and "--trainer.precision 32-true" in m for m in messages)
