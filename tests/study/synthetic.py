"""Studies with plausible rows, for the tests of reports: accuracies with seeds' noise, a diverged and a failed run."""

import random
from collections.abc import Mapping
from typing import Any

from cnn_jax.study.outcome import RunRow
from cnn_jax.study.spec import Study, check_study, variants_of

HARDWARE = "cpu (AMD EPYC 9B14, 2 cores)"
CHECKSUMS = {"train": "0f3c9a12be77d401", "test": "77aa01f2c3d4e5f6"}
MEASURES = {
    "test accuracy": {"share": True, "of": {"test/accuracy": 1.0}},
    "generalisation gap": {
        "share": True,
        "direction": "lower",
        "of": {"train/accuracy": 1.0, "test/accuracy": -1.0},
    },
    "gradient norm of the first layer after one epoch": {"log": True, "of": {"gradient_norm/first": 1.0}},
    "steps to 90 %": {
        "direction": "lower",
        "steps_to": {"metric": "validation/accuracy", "target": 0.9},
    },
}


def names(count: int) -> list[str]:
    """Names of variants beside the baseline; the third is as long as a name may be."""
    known = ["no BatchNorm", "sigmoid", "conv-act-BN with label smoothing 0.1 and weight decay of 5e-4"]
    known += [f"depth {4 * index} and a learning rate of 0.0{index} from step 1" for index in range(1, 10)]
    return known[:count]


def make_study(*, variants: int, measures: int, seeds: int = 5, changes: Mapping[str, Any] | None = None) -> Study:
    """A study of so many variants, the baseline among them, with each measure compared."""
    others = names(variants - 1)
    chosen = dict(list(MEASURES.items())[:measures])
    comparisons = [
        {
            "measure": measure,
            "variant": other,
            "claim": "greater" if index % 2 else "less",
            "smallest": 0.005 if index == 0 else 0.0,
            "primary": index == 0,
        }
        for index, measure in enumerate(chosen)
        for other in others
    ]
    return check_study(
        {
            "id": "c05",
            "title": "BatchNorm before or after the activation",
            "claim": "BatchNorm before the activation is better than behind it.",
            "source": "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3.2",
            "baseline": {"model": {"name": "vgg"}, "seed": 0},
            "variants": {name: {"model.norm": index, "model.activation": "tanh"} for index, name in enumerate(others)},
            "seeds": list(range(seeds)),
            "measures": chosen,
            "comparisons": comparisons,
            "notes": "Small nets on 2,000 images.\nTried at depth 4 first.",
            **(changes or {}),
        }
    )


def make_rows(study: Study, *, broken: bool = True) -> list[RunRow]:
    """One row for each run; with `broken` one diverged and one failed."""
    draw = random.Random(7)
    rows = []
    for place, variant in enumerate(variants_of(study)):
        for seed in study.seeds:
            noise = draw.gauss(0, 0.004)
            accuracy = 0.9 - 0.01 * place + noise + 0.001 * seed
            values = {
                "test/accuracy": accuracy,
                "train/accuracy": accuracy + 0.05 + draw.gauss(0, 0.003),
                "gradient_norm/first": 0.3 * 2.0**-place * (1 + draw.random()),
                "steps to 90 %": 200.0 + 40 * place + 10 * seed,
                "parameters": 61_706.0 + 1000 * place,
                "multiply_accumulates": 416_520.0 * (1 + place),
                "steps": 500.0,
                "seconds": 12.5 + draw.random(),
                "examples_per_second": 5120.0 + draw.random(),
            }
            rows.append(
                RunRow(
                    variant=variant,
                    seed=seed,
                    status="completed",
                    values=values,
                    chosen={"optimizer.learning_rate": 0.1 / (1 + place)},
                    key=f"{place:02x}{seed:02x}" + "9f3ab2c4d5e6",
                    commit="512053f5a1b2c3d4",
                    hardware=HARDWARE,
                    data=CHECKSUMS,
                )
            )
    if broken:
        common = {"commit": "512053f5a1b2c3d4+", "hardware": HARDWARE, "data": CHECKSUMS}
        last, before = rows[-1], rows[-2]
        message = "loss is NaN at step 37, rate 0.5 <script>alert('|')</script>"
        rows[-1] = RunRow(last.variant, last.seed, "diverged", {"steps": 37.0}, key=last.key, message=message, **common)
        rows[-2] = RunRow(before.variant, before.seed, "failed", key=before.key, message="out of memory", **common)
    return rows


def make_curves(study: Study) -> dict[str, dict[str, dict[int, list[tuple[int, float]]]]]:
    """Metric to learning curves."""
    draw = random.Random(11)
    curves: dict = {"validation/accuracy": {}, "train/loss": {}}
    for place, variant in enumerate(variants_of(study)):
        for metric, shape in (
            ("validation/accuracy", lambda t, place=place: (0.92 - 0.01 * place) * (1 - 0.8 * 2.0 ** (-t / 60))),
            ("train/loss", lambda t, place=place: 2.3 * 2.0 ** (-t / (50 + 10 * place)) + 0.003),
        ):
            curves[metric][variant] = {
                seed: [(step, shape(step) * (1 + draw.gauss(0, 0.02))) for step in range(10, 510, 10)]
                for seed in study.seeds
            }
    return curves
