import copy
import dataclasses
import pickle
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from ecgdiff.ecg import Recording
from ecgdiff.ecg.leads import LEADS_12, LIMB, derive_12


def noise(leads, time, seed=0):
    return np.random.default_rng(seed).standard_normal((leads, time)).astype(np.float32)


@pytest.fixture
def recording():
    start = datetime(2026, 1, 2, tzinfo=timezone.utc)
    return Recording(noise(3, 1000), 100, ("I", "II", "V1"), start=start, meta={"unit": "uV"})


def test_properties(recording):
    assert (recording.n_leads, recording.n_samples, recording.duration) == (3, 1000, 10.0)
    assert recording.sampling_rate == 100.0
    assert isinstance(recording.sampling_rate, float)
    assert recording.provenance == ("measured",) * 3
    assert recording.signal.dtype == np.float32
    assert recording.measured.all()
    assert repr(recording) == "Recording(3 leads: I II V1; 10 s at 100 Hz; 100 % measured)"
    np.testing.assert_array_equal(recording.lead("v1"), recording.signal[2])


def test_is_a_read_only_copy(recording):
    source = noise(1, 10)
    kept = Recording(source, 100, ("I",))
    source[:] = 0
    assert kept.signal.any()
    with pytest.raises(ValueError, match="read-only"):
        kept.signal[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        kept.lead("I")[0] = 1
    with pytest.raises(TypeError):
        recording.meta["unit"] = "mV"
    with pytest.raises(dataclasses.FrozenInstanceError):
        recording.sampling_rate = 50.0


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_can_be_copied_and_sent_to_workers(recording, clone):
    other = clone(recording)
    np.testing.assert_array_equal(other.signal, recording.signal)
    assert not other.signal.flags.writeable
    for name in ("sampling_rate", "leads", "provenance", "start"):
        assert getattr(other, name) == getattr(recording, name)
    assert dict(other.meta) == dict(recording.meta)


@pytest.mark.parametrize(
    ("signal", "match"),
    [
        (np.zeros(10), r"signal\[None\]"),
        (np.zeros((1, 1, 10)), r"\(leads, time\)"),
        (np.zeros((1, 0)), r"\(leads, time\)"),
        (np.zeros((0, 10)), r"\(leads, time\)"),
        (np.zeros((1, 10), dtype=complex), "complex128"),
        (np.zeros((1, 10), dtype=bool), "bool"),
        ([["a"]], "dtype"),
        (np.zeros((2, 10)), "1 lead names"),
    ],
)
def test_refuses_signals_of_other_shape_or_type(signal, match):
    with pytest.raises(ValueError, match=match):
        Recording(signal, 100, ("I",))


@pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf, None, "fast"])
def test_refuses_impossible_rates(rate):
    with pytest.raises(ValueError, match="sampling rate"):
        Recording(noise(1, 10), rate, ("I",))


def test_refuses_leads_and_provenance_that_do_not_fit():
    with pytest.raises(ValueError, match="Unknown lead 'V9'"):
        Recording(noise(1, 10), 100, ("V9",))
    with pytest.raises(ValueError, match="aVR occurs more often"):
        Recording(noise(2, 10), 100, ("AVR", "aVR"))
    with pytest.raises(ValueError, match="lead I is 'guessed'"):
        Recording(noise(1, 10), 100, ("I",), ("guessed",))
    with pytest.raises(ValueError, match="1 provenance words for 2 leads"):
        Recording(noise(2, 10), 100, ("I", "II"), ("measured",))


def test_takes_one_bare_lead_name_and_too_large_values_become_infinite():
    recording = Recording(np.array([[1e300, 1.0]]), 100, "Lead II")
    assert recording.leads == ("II",)
    assert np.isinf(recording.signal[0, 0])
    assert not recording.measured[0, 0]


def test_select_by_name_keeps_provenance():
    recording = Recording(noise(2, 10), 100, ("I", "III"), ("measured", "derived"))
    chosen = recording.select(["Lead III", "I"])
    assert chosen.leads == ("III", "I")
    assert chosen.provenance == ("derived", "measured")
    np.testing.assert_array_equal(chosen.signal, recording.signal[::-1])
    assert recording.select("III").leads == ("III",)
    with pytest.raises(ValueError, match="no lead V2; this recording has I, III"):
        recording.select(["V2"])
    with pytest.raises(ValueError, match="more often"):
        recording.select(["I", "I"])


def test_crop_moves_the_start(recording):
    part = recording.crop(2.5, 4.0)
    np.testing.assert_array_equal(part.signal, recording.signal[:, 250:400])
    assert part.start == recording.start + timedelta(seconds=2.5)
    assert recording.crop().n_samples == 1000
    assert Recording(noise(1, 10), 100, "I").crop(0.05).start is None


def test_crop_keeps_the_samples_within_the_times():
    recording = Recording(noise(1, 5116), 511.6, "I")
    pieces = [recording.crop(k, k + 1) for k in range(10)]
    np.testing.assert_array_equal(np.hstack([p.signal for p in pieces]), recording.signal)


@pytest.mark.parametrize("times", [(2, 2), (3, 2), (-1, 2), (0, 11), (10, 12), (np.nan, 2)])
def test_refuses_stretches_outside(recording, times):
    with pytest.raises(ValueError, match="not within the recording, which runs from 0 to 10 s"):
        recording.crop(*times)
    with pytest.raises(ValueError, match="not within"):
        recording.with_lost(blocks=[times])


def test_refuses_stretches_between_two_samples(recording):
    with pytest.raises(ValueError, match="no sample between"):
        recording.crop(0.001, 0.002)


def test_with_lost_marks_leads_and_blocks(recording):
    lost = recording.with_lost(["II"], [(1, 2)], {"V1": [(5, 6), (7, 8.5)]})
    expected = np.ones((3, 1000), dtype=bool)
    expected[1] = False
    expected[:, 100:200] = False
    expected[2, 500:600] = expected[2, 700:850] = False
    np.testing.assert_array_equal(lost.measured, expected)
    np.testing.assert_array_equal(lost.signal[expected], recording.signal[expected])
    assert recording.measured.all()
    assert not recording.with_lost("II").measured[1].any()
    with pytest.raises(ValueError, match="no lead V6"):
        recording.with_lost(["V6"])
    with pytest.raises(ValueError, match="no lead V6"):
        recording.with_lost(lead_blocks={"V6": [(1, 2)]})


def test_resample_keeps_all_but_signal_and_rate(recording):
    faster = recording.resample(250)
    assert (faster.n_samples, faster.sampling_rate) == (2500, 250.0)
    assert (faster.leads, faster.start, faster.meta) == (
        recording.leads,
        recording.start,
        recording.meta,
    )
    assert recording.resample(100) is recording
    with pytest.raises(ValueError, match="sampling rate"):
        recording.resample(0)


def test_a_single_lead_can_be_renamed(recording):
    chest = Recording(noise(1, 10), 130, "chest")
    renamed = chest.with_leads_as("Lead I")
    assert renamed.leads == ("I",)
    assert renamed.meta["renamed_from"] == "chest"
    assert chest.with_leads_as("chest") is chest
    with pytest.raises(ValueError, match=r"\(--assume-lead\), this one has 3 leads"):
        recording.with_leads_as("I")


@pytest.mark.parametrize("a", LIMB)
@pytest.mark.parametrize("b", LIMB)
def test_two_limb_leads_give_all_six(a, b):
    truth = Recording(derive_12(noise(8, 40)), 100, LEADS_12)
    if a == b:
        assert truth.select([a]).complete_limb_leads().leads == (a,)
        return
    full = truth.select(["V3", a, b]).complete_limb_leads()
    assert full.leads == (*LIMB, "V3")
    np.testing.assert_allclose(full.select(LIMB).signal, truth.select(LIMB).signal, atol=1e-5)
    words = dict(zip(full.leads, full.provenance, strict=True))
    assert {name for name in LIMB if words[name] == "derived"} == set(LIMB) - {a, b}


def test_completion_works_sample_by_sample():
    truth = Recording(derive_12(noise(8, 1000)), 100, LEADS_12)
    some = truth.select(["aVF", "I", "II"]).with_lost(
        lead_blocks={"I": [(0, 2)], "II": [(1, 3)], "aVF": [(4, 5)]}
    )
    full = some.complete_limb_leads()
    assert full.leads == LIMB
    assert full.provenance == ("derived",) * 6
    # Only aVF is left from second 1 to 2.
    known = np.ones((6, 1000), dtype=bool)
    known[:5, 100:200] = False
    np.testing.assert_array_equal(full.measured, known)
    np.testing.assert_allclose(full.signal[known], truth.signal[:6][known], atol=1e-5)
    before = some.measured[0]
    np.testing.assert_array_equal(full.lead("aVF")[before], some.lead("aVF")[before])


def test_completion_averages_leads_that_disagree_and_keeps_them():
    recording = Recording([[1.0], [2.0], [1.3]], 100, ("I", "II", "III"))
    full = recording.complete_limb_leads()
    np.testing.assert_array_equal(full.signal[:3], recording.signal)
    # Least squares spreads the excess 0.3 of I + III - II evenly: I = 0.9, II = 2.1.
    np.testing.assert_allclose(full.signal[3:, 0], [-1.5, 0.9 - 1.05, 2.1 - 0.45], atol=1e-6)


def test_nothing_is_derived_from_synthetic_leads_or_from_one():
    recording = Recording(noise(2, 10), 100, ("I", "II"), ("measured", "synthetic"))
    assert recording.complete_limb_leads() is recording
    apart = Recording(noise(2, 1000), 100, ("I", "II"))
    apart = apart.with_lost(lead_blocks={"I": [(0, 5)], "II": [(5, 10)]})
    assert apart.complete_limb_leads() is apart
    complete = Recording(derive_12(noise(8, 10)), 100, LEADS_12)
    assert complete.complete_limb_leads() is complete
