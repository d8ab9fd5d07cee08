"""The directory of a study as its runs leave it, without training: two variants of two seeds."""

import json

from cnn_jax.study.cell import Cell, Plan, write_plan
from cnn_jax.study.spec import check_study
from cnn_jax.study.stored import write_study

RESULT = {
    "status": "completed",
    "metrics": {"test/accuracy": 0.5, "test/loss": 1.0},
    "steps": 10,
    "seed": 0,
    "commit": "abc",
    "dirty": False,
    "wall_seconds": 1.0,
    "examples_per_second": 10.0,
    "parameters": 5,
    "probes": {},
    "message": "",
    "runs_together": 1,
    "hardware": {"device": "cpu", "processor": "a processor", "cores": 2},
}
PASSPORT = {"sessions": [{"versions": {"jax": "1"}, "flags": {"XLA_FLAGS": "none"}}]}


def make_directory(directory):
    """Write it, and give it back."""
    study = check_study(
        {
            "id": "c1",
            "title": "A study",
            "claim": "A helps.",
            "baseline": {"model": {"name": "mlp"}},
            "variants": {"other": {"model.hidden": (16,)}},
            "seeds": (0, 1),
            "measures": {"test/accuracy": {"share": True}},
            "comparisons": ({"measure": "test/accuracy", "variant": "other"},),
        }
    )
    write_study(directory, study)
    cells = [
        Cell(variant=variant, seed=seed, chosen={}, trial=None, data={"train": "0" * 64}, key="0123456789abcdef")
        for variant in ("baseline", "other")
        for seed in (0, 1)
    ]
    write_plan(directory, Plan(cells=tuple(cells)))
    for cell in cells:
        folder = cell.folder(directory)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({**RESULT, "seed": cell.seed}), encoding="utf-8")
        (folder / "passport.json").write_text(json.dumps(PASSPORT), encoding="utf-8")
        rows = [{"step": step, "epoch": 0.1, "train/loss": 1.0 / step, "time": {}} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return directory
