"""What a passport says of a program that computes many runs: with it any of them can be computed again to the bit."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.train.config import to_plain
from cnn_jax.train.differences import differences
from cnn_jax.train.experiment import Experiment


def program_record(
    experiments: Sequence[Experiment], among: Sequence[Experiment], index: int, *, mode: str, devices: int
) -> dict[str, Any]:
    """One run's view of its program: the other runs are told by what their configs have that its own has not.

    Args:
      experiments: the runs that are computed.
      among: the runs that the program is made for; what differs between them are its arguments, all else constants.
      index: of the run.
      mode: see `many_runs.Runs`.
      devices: over how many the runs are divided.

    Returns:
      `mode`, `devices`, `place` (the run's, in `runs`), and `runs` and `among`: of each the assignments, dotted path to
      value, that make its config of this run's.
    """
    own = to_plain(experiments[index].config)

    def assignments(experiment: Experiment) -> Mapping[str, Any]:
        return {change.what: change.now for change in differences(own, to_plain(experiment.config))}

    runs = [assignments(experiment) for experiment in experiments]
    return {
        "mode": mode,
        "devices": devices,
        "place": index,
        "runs": runs,
        "among": runs if among is experiments else [assignments(experiment) for experiment in among],
    }


def is_record(value: Any) -> bool:
    """Whether a value of a passport is what `program_record` gives.

    Args:
      value: anything that JSON holds.
    """
    if not isinstance(value, Mapping) or value.get("mode") not in ("vmap", "sequential"):
        return False
    runs, among, place = value.get("runs"), value.get("among"), value.get("place")
    if not isinstance(runs, list) or not isinstance(among, list) or not isinstance(place, int):
        return False
    known = all(isinstance(each, Mapping) for each in among) and all(each in among for each in runs)
    return known and 0 <= place < len(runs) and isinstance(value.get("devices"), int)
