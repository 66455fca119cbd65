import numpy as np
import pytest

from ecgdiff.ecg.leads import (
    CHEST,
    LEADS_8,
    LEADS_9,
    LEADS_12,
    LIMB_FROM_I_II,
    canonical,
    derive_12,
    limb_contradiction,
)


def test_lead_sets_are_subsets_in_standard_order():
    assert len(LEADS_12) == 12
    for leads in (LEADS_8, LEADS_9):
        assert list(leads) == [name for name in LEADS_12 if name in leads]
    assert (len(LEADS_8), len(LEADS_9)) == (8, 9)


@pytest.mark.parametrize("name", [*LEADS_12, CHEST])
def test_canonical_accepts_any_case_and_known_prefixes(name):
    spellings = [name, name.upper(), name.lower(), f"  {name} "]
    spellings += [f"Lead {name}", f"lead_{name}", f"ECG {name}", f"ECG Lead {name}"]
    spellings += [f"MDC_ECG_LEAD_{name.upper()}", f"MDC_ECG_ELEC_POTL_{name}"]
    assert {canonical(spelling) for spelling in spellings} == {name}


def test_canonical_knows_the_romance_names():
    assert [canonical(name) for name in ("DI", "DII", "diii")] == ["I", "II", "III"]


@pytest.mark.parametrize(
    "name", ["", "1", "Lead 2", "-aVR", "V7", "V3R", "IV", "ECG", "MLII", "leadI"]
)
def test_canonical_refuses_what_it_does_not_know_and_names_it(name):
    with pytest.raises(ValueError, match="Unknown lead") as error:
        canonical(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (3, 2)])
def test_derive_12_satisfies_einthoven_and_goldberger(dtype, batch):
    signal = np.random.default_rng(0).standard_normal((*batch, 8, 50)).astype(dtype)
    full = derive_12(signal)
    assert full.shape == (*batch, 12, 50)
    assert full.dtype == dtype
    i, ii, iii, avr, avl, avf = np.moveaxis(full, -2, 0)[:6]
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(i + iii, ii, atol=tolerance)
    np.testing.assert_allclose(avr + avl + avf, 0, atol=tolerance)
    np.testing.assert_allclose(avl, (i - iii) / 2, atol=tolerance)
    np.testing.assert_allclose(avf, (ii + iii) / 2, atol=tolerance)
    kept = [LEADS_12.index(name) for name in LEADS_8]
    np.testing.assert_array_equal(full[..., kept, :], signal)


def test_derive_12_agrees_with_the_matrix():
    signal = np.random.default_rng(1).standard_normal((8, 20))
    np.testing.assert_allclose(derive_12(signal)[:6], LIMB_FROM_I_II @ signal[:2], atol=1e-15)


def test_derive_12_keeps_missing_samples_missing():
    signal = np.ones((8, 3))
    signal[1, 0] = np.nan
    missing = np.isnan(derive_12(signal))
    assert missing[1:6, 0].all()
    assert missing.sum() == 5


@pytest.mark.parametrize("shape", [(8,), (12, 10), (2, 9, 10)])
def test_derive_12_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="8, time"):
        derive_12(np.zeros(shape))


def test_any_two_limb_leads_are_independent_and_the_table_is_read_only():
    for a in range(6):
        for b in range(a):
            assert abs(np.linalg.det(LIMB_FROM_I_II[[a, b]])) > 0.4
    with pytest.raises(ValueError, match="read-only"):
        LIMB_FROM_I_II[0, 0] = 2


def test_limb_leads_that_obey_the_laws_do_not_contradict_each_other():
    signal = derive_12(np.random.default_rng(0).normal(size=(8, 500)))
    assert limb_contradiction(signal, LEADS_12)[0] < 1e-12
    assert limb_contradiction(signal[:2], ("I", "II")) == (0.0, None)
    assert limb_contradiction(signal[6:], LEADS_12[6:]) == (0.0, None)


def test_a_negated_or_swapped_limb_lead_is_found():
    signal = derive_12(0.3 * np.random.default_rng(0).normal(size=(8, 500)))
    for lead in ("aVR", "II"):
        wrong = signal.copy()
        wrong[LEADS_12.index(lead)] *= -1
        size, worst = limb_contradiction(wrong, LEADS_12)
        assert size > 0.05 and worst == lead
    size, _ = limb_contradiction(signal[[0, 2, 1]], ("I", "II", "III"))
    assert size > 0.05
