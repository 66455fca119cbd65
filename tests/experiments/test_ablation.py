"""The ablation of MGPS: candidates of equal cost, tuning on other problems, paired differences."""

from typing import Any

import pytest

from ecgdiff.experiments import ablation
from ecgdiff.experiments.ablation import ETAS, RATES, STEPS, Setting, candidates, equal_cost
from ecgdiff.samplers import MGPS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("gradient_steps", [0, 2, 20])
def test_candidates_cost_what_they_may(gradient_steps: int) -> None:
    made = equal_cost(0.5, gradient_steps, 0.1, 700)
    more = MGPS(made.steps + 1, gradient_steps=gradient_steps)
    assert sum(made.nfe()) <= 700 < sum(more.nfe())
    assert equal_cost(0.5, gradient_steps, 0.1, 1).steps == 2


def test_candidates_are_the_paper_s_method() -> None:
    for (eta, gradient_steps, lr), sampler in candidates(200).items():
        found = (sampler.midpoint, sampler.gradient_steps, sampler.lr)
        assert found == (eta, gradient_steps, lr)
        assert (sampler.scale_free, sampler.warm, sampler.form) == (False, None, "gaussian")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    setting = Setting(d=2, replicates=3, tuning=2, draws=20, directions=10, calls=40, published=8)
    return ablation.run(setting)


def test_the_best_on_other_problems_is_compared(result: dict[str, Any]) -> None:
    tuning, families = result["tuning"], result["families"]
    for family, start in (("tuned", "midpoint {},"), ("gradient steps", "midpoint 0.5, M = {},")):
        for key, name in families[family].items():
            mine = {n: m for n, m in tuning.items() if n.startswith(start.format(key))}
            assert len(mine) == len(RATES) * (len(STEPS) if family == "tuned" else 1)
            assert tuning[name]["mean"] == min(m["mean"] for m in mine.values())
            assert result["methods"][name]["calls"] == tuning[name]["calls"]
    assert not set(tuning["floor"]["scores"]) & set(result["methods"]["floor"]["scores"])
    calls = [result["methods"][name]["calls"] for name in families["published"].values()]
    assert calls == [list(MGPS.mixture(7).nfe())] * len(ETAS)


def test_differences_are_paired(result: dict[str, Any]) -> None:
    for family, gaps in result["worse_than_half"].items():
        assert list(gaps) == ["0.25", "0.75", "1"]
        last, half = (result["methods"][result["families"][family][eta]] for eta in ("1", "0.5"))
        wanted = [a - b for a, b in zip(last["scores"], half["scores"], strict=True)]
        assert gaps["1"]["scores"] == pytest.approx(wanted, abs=1e-4)
        assert gaps["1"]["mean"] == pytest.approx(sum(wanted) / 3)


def test_the_table_says_all_of_it(result: dict[str, Any]) -> None:
    text = ablation.table(result)
    assert all(f"| {name} |" in text for name in (*result["methods"], *result["tuning"]))
    gap, name = result["worse_than_half"]["tuned"]["1"], result["families"]["tuned"]["1"]
    last = f"{gap['mean']:+.2f} ± {gap['half_width']:.2f} |"
    (line,) = [row for row in text.split("\n") if row.startswith(f"| 1 | {name} |")]
    assert line.endswith(last)
    assert len(ablation.figure(result)["data"][0]["y"]) == len(result["methods"])
