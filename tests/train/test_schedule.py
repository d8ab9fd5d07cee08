"""Schedules against their formulas, and durations in every unit."""

import functools
import math

import jax
import numpy as np
import pydantic
import pytest

from cnn_jax.errors import UserError
from cnn_jax.train.duration import Duration
from cnn_jax.train.schedule import SCHEDULES

PEAK, TOTAL = 0.5, 100
to_steps = functools.partial(Duration.to_steps, examples_per_epoch=200, batch_size=10)


def cosine(first, last, progress):
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def warm(after, count, warmup=10):
    return PEAK * (count + 1) / warmup if count < warmup else after(count - warmup)


WARMUP = Duration(steps=10)
CASES = {
    "constant": (SCHEDULES["constant"], {}, lambda _: PEAK),
    "constant, warm-up": (SCHEDULES["constant"], {"warmup": WARMUP}, lambda s: warm(lambda _: PEAK, s)),
    "step": (
        SCHEDULES["step"],
        {"boundaries": (Duration(steps=30), Duration(epochs=3))},  # an epoch is 20 steps
        lambda s: PEAK * 0.1 ** ((s >= 30) + (s >= 60)),
    ),
    "step, warm-up": (
        SCHEDULES["step"],
        {"boundaries": (Duration(examples=300),), "factor": 0.5, "warmup": WARMUP},
        lambda s: PEAK * (s + 1) / 10 if s < 10 else PEAK * 0.5 ** (s >= 30),
    ),
    "exponential": (
        SCHEDULES["exponential"],
        {"every": Duration(epochs=1), "factor": 0.7},
        lambda s: PEAK * 0.7 ** (s / 20),
    ),
    "exponential, staircase": (
        SCHEDULES["exponential"],
        {"every": Duration(steps=20), "factor": 0.7, "staircase": True},
        lambda s: PEAK * 0.7 ** (s // 20),
    ),
    "cosine": (SCHEDULES["cosine"], {}, lambda s: cosine(PEAK, 0, s / 100)),
    "cosine, warm-up": (
        SCHEDULES["cosine"],
        {"warmup": WARMUP, "final": 0.1},
        lambda s: warm(lambda t: cosine(PEAK, 0.1 * PEAK, t / 90), s),
    ),
    "polynomial": (
        SCHEDULES["polynomial"],
        {"power": 2.0, "final": 0.2},
        lambda s: 0.2 * PEAK + 0.8 * PEAK * (1 - s / 100) ** 2,
    ),
    "linear, warm-up": (
        SCHEDULES["polynomial"],
        {"warmup": WARMUP},
        lambda s: warm(lambda t: PEAK * (1 - t / 90), s),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_equals_its_formula_at_every_step(name):
    make, options, formula = CASES[name]
    rate = jax.jit(jax.vmap(make(PEAK, TOTAL, to_steps, **options)))
    expected = [formula(step) for step in range(TOTAL)]
    np.testing.assert_allclose(rate(np.arange(TOTAL)), expected, rtol=2e-5, atol=1e-7)


# torch.optim.lr_scheduler.OneCycleLR of torch 2.13.0, max_lr 0.5, at the steps of ONE_CYCLE_STEPS.
ONE_CYCLE_STEPS = (0, 1, 10, 20, 24, 25, 29, 30, 50, 75, 98, 99)
ONE_CYCLE = [
    # total_steps 100, pct_start 0.25, div_factor 10, final_div_factor 10
    (
        100,
        {"rise": 0.25, "start": 0.1, "final": 0.01},
        [
            0.04999999999999999,
            0.05192490619089263,
            0.2167657148519328,
            0.4698557158514987,
            0.5,
            0.49978290044946744,
            0.4945915311816169,
            0.4922243323793362,
            0.36716576869216583,
            0.11988286824269828,
            0.00521709955053255,
            0.005,
        ],
    ),
    # total_steps 101 and torch's defaults
    (
        101,
        {},
        [
            0.020000000000000018,
            0.021378255200136587,
            0.1452369816065388,
            0.39024541341018404,
            0.4622794134291474,
            0.47494030199584375,
            0.4998758488309306,
            0.49987907105671475,
            0.40149209376283623,
            0.13903506366955512,
            0.0009886050304604062,
            0.00024877305198064617,
        ],
    ),
]


@pytest.mark.parametrize(("total", "options", "expected"), ONE_CYCLE)
def test_one_cycle_equals_torch(total, options, expected):
    rate = jax.vmap(SCHEDULES["one_cycle"](PEAK, total, to_steps, **options))
    np.testing.assert_allclose(rate(np.asarray(ONE_CYCLE_STEPS)), expected, rtol=1e-4, atol=1e-7)


def test_the_cases_cover_the_table():
    assert {make for make, _, _ in CASES.values()} | {SCHEDULES["one_cycle"]} == set(SCHEDULES.values())


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 1}, 20),
        ({"epochs": 0.5}, 10),
        ({"epochs": 0.001}, 1),
        ({"examples": 100}, 10),
        ({"examples": 104}, 10),
        ({"examples": 106}, 11),
    ],
)
def test_durations_convert_to_the_nearest_number_of_steps(duration, steps):
    assert to_steps(Duration(**duration)) == steps


@pytest.mark.parametrize(
    "duration", [{}, {"steps": 1, "epochs": 1}, {"steps": 0}, {"epochs": -1.0}, {"epochs": math.inf}]
)
def test_a_duration_that_is_none_or_two_is_refused(duration):
    with pytest.raises(pydantic.ValidationError):
        Duration(**duration)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "step",
            {"boundaries": (Duration(steps=30), Duration(steps=20))},
            r"must increase; in steps they are \[30, 20\]",
        ),
        ("step", {"boundaries": (Duration(steps=5),), "warmup": WARMUP}, "must come after the 10 steps of warm-up"),
        ("cosine", {"warmup": Duration(steps=100)}, "must be shorter than the 100 steps"),
        ("polynomial", {"warmup": Duration(epochs=6)}, "must be shorter than the 100 steps"),
    ],
)
def test_impossible_schedules_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        SCHEDULES[name](PEAK, TOTAL, to_steps, **options)
