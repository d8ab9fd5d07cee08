"""Time training, in turn with PyTorch, and predict it for more devices.

Example:
  python experiments/benchmark.py cpu --rows=lenet5:train,resnet20 --torch-python=/path/to/venv/bin/python
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.console
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError, unknown_name

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: written by experiments/benchmark.py table -->", "<!-- end of benchmarks -->"
COMMANDS = {
    "cpu": "training steps and forward passes on this CPU, against PyTorch",
    "command": "the whole training command, start to finish, against a PyTorch script",
    "data": "input pipelines on this CPU, against tf.data, PyTorch's DataLoader and Pillow's decoding",
    "gpu": "training steps and forward passes on a GPU in bfloat16, against PyTorch",
    "runs": "many runs trained in one program, against one alone, on any device",
    "scaling": "predict the step time on 1 to 1,024 devices",
    "study": "a whole study, start to finish, against a loop over a PyTorch script and against our runs in turn",
    "table": "write the README's section from the stored benchmarks",
}


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand."""
    parser = command.Parser("Time training, in turn with PyTorch, and predict it for more devices.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    for name in ("cpu", "command", "data", "gpu", "study"):
        made = "this one" if name == "gpu" else "made once"
        parsers[name].add_argument("--torch-python", metavar="PATH", help=f"a Python with torch; default: {made}")
    parsers["data"].add_argument("--tensorflow-python", metavar="PATH", help="one with TensorFlow; default: made once")
    for name in ("cpu", "command", "data", "gpu", "runs", "study"):
        most = 1 if name == "study" else 5  # one of a study is many runs
        parsers[name].add_argument("--rounds", type=int, default=most, help="at least this many; default: %(default)s")
        parsers[name].add_argument("--store", action="store_true", help="store the rows and write them into the README")
    for name, default in (("cpu", ""), ("data", ""), ("gpu", ""), ("runs", "resnet20")):
        example = "tf_data,stream_threads" if name == "data" else "lenet5:train,resnet20"
        help_text = f"such as {example}; default: {default or 'all'}"
        parsers[name].add_argument("--rows", default=default, help=help_text)
        parsers[name].add_argument("--row-seconds", type=float, default=20.0, help="rounds are made until then")
        parsers[name].add_argument("--turn-seconds", type=float, default=0.8, help="how long a side runs")
    for name in ("command", "study"):
        parsers[name].add_argument("--peer", default="torch", choices=("torch", "none"), help="default: torch")
    for name in ("cpu", "gpu"):
        parsers[name].add_argument(
            "--peer",
            default="torch",
            choices=("torch", "plain", "none"),
            help="default: torch; plain is ours without overrides and --environment",
        )
    for name in ("cpu", "gpu"):
        parsers[name].add_argument(
            "--environment", action="append", default=[], metavar="KEY=VALUE", help="for ours, such as XLA_FLAGS=..."
        )
        parsers[name].add_argument(
            "--peer-environment", action="append", default=[], metavar="KEY=VALUE", help="for the peer"
        )
    parsers["runs"].add_argument("--runs", type=int, default=32, help="how many; default: %(default)s")
    parsers["command"].add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    study = parsers["study"]
    study.add_argument("--epochs", type=int, default=30, help="of each run; default: %(default)s")
    study.add_argument("--seeds", type=int, default=8, help="how many; default: %(default)s")
    study.add_argument("--rates", default="0.1,0.02,0.05,0.2", help="learning rates; default: %(default)s")
    study.add_argument("--runs-of-loop", type=int, default=4, help="timed of each loop; default: %(default)s")
    study.add_argument("--workers", type=int, help="processes of the study; default: one a core, on a GPU one")
    study.add_argument("--device", default="cpu", choices=("cpu", "gpu"), help="default: %(default)s")
    parsers["gpu"].add_argument("--smoke", action="store_true", help="tiny sizes, on any device")
    scaling = parsers["scaling"]
    scaling.add_argument("--model", default="resnet50", help="a model of the CPU table; default: %(default)s")
    scaling.add_argument("--interconnect", default="nvlink4", help="a name; an unknown one lists all")
    scaling.add_argument("--bandwidth", type=float, help="bytes per second of a device, instead of the interconnect's")
    scaling.add_argument("--latency", type=float, help="seconds, instead of the interconnect's")
    scaling.add_argument("--step-seconds", type=float, help="compute of one device; default: measured here")
    scaling.add_argument("--flops-per-second", type=float, help="the same, from the network's operations")
    scaling.add_argument("--batch-size", type=int, help="per device; default: the CPU table's")
    parsers["table"].add_argument("--check", action="store_true", help="write nothing; exit with 2 if out of date")
    known, overrides = parser.parse_known_args(arguments)
    if overrides and known.command not in ("cpu", "command", "gpu", "runs", "study"):  # the others have no config
        raise UserError(f"argument {overrides[0]!r} is not understood; --help shows the arguments")
    if getattr(known, "rounds", 1) < 1:
        raise UserError(f"--rounds={known.rounds} must be 1 or more")
    if getattr(known, "store", False):
        if getattr(known, "peer", "") == "plain" or getattr(known, "smoke", False):
            raise UserError("--store is for measurements against PyTorch at full size; drop --peer=plain and --smoke")
        if known.command in ("cpu", "data", "gpu") and known.rows:
            raise UserError(f"--store replaces the whole table; drop --rows={known.rows}")
    if known.command == "scaling":
        return show_scaling(known)
    if known.command == "table":
        return write_table(check=known.check)
    measurements = {
        **{"cpu": run_cpu, "command": run_command, "data": run_data, "gpu": run_gpu},
        **{"runs": run_runs, "study": run_study},
    }
    rows: list[dict[str, Any]] = []
    try:
        for row in measurements[known.command](known, overrides):
            rows.append(row)  # noqa: PERF402 - a later row may fail
    finally:
        if rows:
            show(rows)
    return store(known.command, rows) if known.store else 0


def say(line: str) -> None:
    """Progress, while the numbers are not there yet."""
    print(line, file=sys.stderr, flush=True)


def torch_python(known: Any, *, default: str | None = None) -> str | None:
    """A Python with torch, or None after saying why there is none; the default is the benchmark's own."""
    from cnn_jax.benchmark.peer import find_torch

    if known.peer != "torch":
        return None
    python, why = find_torch(known.torch_python or default)
    if python is None:
        say(f"no PyTorch, so our numbers alone: {why}")
    return python


def protocol(known: Any) -> Any:
    """How each row is measured."""
    from cnn_jax.benchmark.race import Protocol

    return Protocol(rounds=known.rounds, turn_seconds=known.turn_seconds, row_seconds=known.row_seconds)


def run_cpu(known: Any, overrides: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The CPU table; with `--peer=plain` the peer is ours without overrides and environment."""
    from cnn_jax.benchmark.cases import CPU_CASES, select
    from cnn_jax.benchmark.table import measure, our_side, torch_side

    selection = select(known.rows, CPU_CASES)
    # XLA's CPU threads are as many as this process may use; a GPU beside it must not be taken.
    cpu = {"JAX_PLATFORMS": "cpu"}
    ours = our_side(overrides=overrides, environment={**cpu, **assignments("--environment", known.environment)})
    own = assignments("--peer-environment", known.peer_environment)
    python = torch_python(known)
    peer = torch_side(python, environment=own) if python else None
    if known.peer == "plain":
        peer = our_side(environment={**cpu, **own})
    return measure(selection, ours=ours, peer=peer, protocol=protocol(known), say=say)


def assignments(argument: str, given: Sequence[str]) -> dict[str, str]:
    """Environment variables from `KEY=VALUE` texts."""
    for assignment in given:
        if "=" not in assignment:
            raise UserError(f"{argument}={assignment} is no KEY=VALUE")
    return dict(assignment.split("=", 1) for assignment in given)


def run_command(known: Any, overrides: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The whole training command."""
    from cnn_jax.benchmark.whole_command import measure_command

    def python() -> str | None:
        return torch_python(known)

    return measure_command(epochs=known.epochs, rounds=known.rounds, python=python, overrides=overrides, say=say)


def run_data(known: Any, _: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Input pipelines, which have no config to override."""
    from cnn_jax.benchmark.data_cases import select_rows
    from cnn_jax.benchmark.data_rows import measure_data
    from cnn_jax.benchmark.peer import find_tensorflow, find_torch

    finders = {
        "pillow": lambda: (sys.executable, ""),
        "tensorflow": lambda: find_tensorflow(known.tensorflow_python),
        "torch": lambda: find_torch(known.torch_python),
    }

    def find_python(module: str) -> str | None:
        python, why = finders[module]()
        if python is None:
            say(f"no {module}, so our numbers alone: {why}")
        return python

    return measure_data(select_rows(known.rows), find_python=find_python, protocol=protocol(known), say=say)


def run_gpu(known: Any, overrides: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The GPU table."""
    from cnn_jax.benchmark.cases import select
    from cnn_jax.benchmark.gpu import GPU_CASES, bfloat16_side, measure_gpu
    from cnn_jax.benchmark.table import torch_side

    selection = select(known.rows, GPU_CASES)
    ours = bfloat16_side(overrides=overrides, environment=assignments("--environment", known.environment))
    own = assignments("--peer-environment", known.peer_environment)

    def peer(device: str) -> Any:
        if known.peer == "plain":
            return bfloat16_side(environment=own)
        # This Python has torch where a card is set up.
        python = torch_python(known, default=sys.executable)
        return torch_side(python, device=device, autocast=True, environment=own) if python else None

    return measure_gpu(selection, ours=ours, peer=peer, tiny=known.smoke, protocol=protocol(known), say=say)


def run_runs(known: Any, overrides: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Many seeds in one program against one alone."""
    from cnn_jax.benchmark.cases import CPU_CASES, select
    from cnn_jax.benchmark.table import measure, our_side

    if known.runs < 2:
        raise UserError(f"--runs={known.runs} must be 2 or more")
    selection = select(known.rows, CPU_CASES, modes=("train",))
    many, alone = (our_side(overrides=overrides, runs=runs) for runs in (known.runs, 1))
    return measure(selection, ours=many, peer=alone, protocol=protocol(known), say=say)


def run_study(known: Any, overrides: Sequence[str]) -> Iterable[dict[str, Any]]:
    """A whole study."""
    from cnn_jax.benchmark.store import cores
    from cnn_jax.benchmark.study_race import measure_study

    try:
        rates = tuple(float(rate) for rate in known.rates.split(","))
    except ValueError:
        raise UserError(f"--rates={known.rates} must be numbers with commas between them, such as 0.1,0.05") from None
    on_card = known.device == "gpu"
    return measure_study(
        epochs=known.epochs,
        seeds=known.seeds,
        rates=rates,
        runs_of_loop=known.runs_of_loop,
        workers=known.workers if known.workers is not None else 1 if on_card else cores(),
        rounds=known.rounds,
        device=known.device,
        # This Python has torch where a card is set up.
        python=lambda: torch_python(known, default=sys.executable if on_card else None),
        overrides=overrides,
        say=say,
    )


def store(name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Store the rows as JSON and write the README's section."""
    from cnn_jax.benchmark.store import document, save

    peer_versions = {key: value for row in rows for key, value in row["peer_versions"].items()}
    device = rows[0].get("device")
    print(f"stored {save(name, document(rows, peer_versions=peer_versions, device=device))}")
    return write_table(check=False)


def write_table(*, check: bool) -> int:
    """The README's section, from what is stored."""
    from cnn_jax.benchmark.store import markdown, stored

    command.write_section(README, markdown(stored()), begin=BEGIN, end=END, remedy="make bench-table", check=check)
    return 0


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table."""
    table = rich.table.Table(title="examples per second, medians over rounds")
    for name in ("model", "mode", "ours", "peer", "ratio", "least – greatest", "peer's form", "others"):
        table.add_column(name, justify="left" if name in ("model", "mode", "peer's form") else "right")
    for row in rows:
        peer = ("–",) * 4
        if row["ratio"] is not None:
            least, greatest = row["ratio_spread"]
            peer = (f"{row['peer']:,.1f}", f"{row['ratio']:.2f}×", f"{least:.2f} – {greatest:.2f}", row["peer_variant"])
        others = "–" if row["others"] is None else f"{row['others']:.0%}"
        table.add_row(row["model"], row["mode"], f"{row['ours']:,.1f}", *peer, others)
    wide_console().print(table)


def wide_console() -> rich.console.Console:
    """A console that cuts no cell where there is no terminal: a file or a pipe has no width of its own."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return rich.console.Console(soft_wrap=True, width=width)


def show_scaling(known: Any) -> int:
    """Step time and efficiency for 1 to 1,024 devices, and what is assumed."""
    from cnn_jax.benchmark.cases import CPU_CASES, select
    from cnn_jax.benchmark.race import WARM_UP_STEPS
    from cnn_jax.benchmark.scaling import ASSUMPTIONS, INTERCONNECTS, Workload, predict
    from cnn_jax.benchmark.table import OPERATIONS_PER_MAC, our_side

    if known.interconnect not in INTERCONNECTS:
        raise unknown_name("--interconnect", known.interconnect, INTERCONNECTS)
    link = INTERCONNECTS[known.interconnect]
    given = {key: getattr(known, key) for key in ("bandwidth", "latency") if getattr(known, key) is not None}
    if given:
        link = dataclasses.replace(link, **given, source=f"given; {link.source}")
    for name in ("bandwidth", "latency", "step_seconds", "flops_per_second", "batch_size"):
        value = getattr(known, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')}={value} must be above 0")
    if "," in known.model:
        raise UserError(f"--model={known.model} must be one model")
    [(case, _)] = select(f"{known.model}:train", CPU_CASES)
    case = dataclasses.replace(case, batch_size=known.batch_size or case.batch_size)
    with our_side().start() as worker:
        about = worker.ask("describe", case=dataclasses.asdict(case))
        operations = about["macs"] * OPERATIONS_PER_MAC["train"] * case.batch_size
        origin = "given"
        if known.step_seconds:
            seconds = known.step_seconds
        elif known.flops_per_second:
            seconds, origin = operations / known.flops_per_second, f"at {known.flops_per_second:.3g} operations/s"
        else:
            request = {"variant": "jit", "mode": "train", "case": dataclasses.asdict(case)}
            worker.ask("prepare", **request, warm_up=WARM_UP_STEPS)
            seconds, origin = worker.ask("run", variant="jit", steps=3)["seconds"] / 3, f"measured on {about['device']}"
    workload = Workload(
        compute_seconds=seconds,
        parameter_bytes=tuple(about["parameter_bytes"]),
        norm_bytes=tuple(about["norm_bytes"]),
    )
    size, norms = sum(workload.parameter_bytes), len(workload.norm_bytes)
    print(
        f"{case.model}, {case.batch_size} examples a device: compute {seconds * 1e3:,.2f} ms a step ({origin}),"
        f" {size / 1e6:,.1f} MB of parameters in {len(workload.parameter_bytes)} arrays, {norms} BatchNorm layers"
    )
    print(f"{link.bandwidth / 1e9:,.1f} GB/s, {link.latency * 1e6:,.1f} µs ({link.source})")
    table = rich.table.Table(title="milliseconds a step (weak-scaling efficiency)")
    for name in ("devices", "data parallel", "overlapped", "FSDP", "overlapped"):
        table.add_column(name, justify="right")
    for devices in (2**power for power in range(11)):
        prediction = predict(workload, devices, interconnect=link)
        times = (getattr(prediction, name) for name in SCALING_COLUMNS)
        table.add_row(f"{devices:,}", *(f"{time * 1e3:,.2f} ({seconds / time:.0%})" for time in times))
    wide_console().print(table)
    for assumption in ASSUMPTIONS:
        print(f"- {assumption}")
    return 0


SCALING_COLUMNS = ("data_parallel", "data_parallel_overlapped", "fsdp", "fsdp_overlapped")

if __name__ == "__main__":
    command.run(main)
