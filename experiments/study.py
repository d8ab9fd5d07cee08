"""Run a study: a claim, a baseline and variants with several seeds, to intervals and a verdict.

Examples:
  python experiments/study.py --study=configs/studies/c05_batch_norm.py --workdir=studies/c05 --workers=2
  python experiments/study.py report studies/c05
  python experiments/study.py index
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import rich.console
import rich.table

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.paths import require_writable, work_directory_path

HERE = pathlib.Path(__file__).resolve().parent
WIDTH = 160
"""Characters of a line that goes to no terminal."""
README, RESULTS = HERE.parent / "README.md", HERE / "results"
MODES: Mapping[str, Literal["vmap", "sequential"] | None] = {
    "auto": None,
    "together": "vmap",
    "in_turn": "sequential",
}


def main(arguments: Sequence[str]) -> int:
    """Plan, run and report a study, or one of the subcommands."""
    subcommands: Mapping[str, Callable[[Sequence[str]], int]] = {
        "report": report,
        "store": store,
        "index": index,
        "work": work,
    }
    if arguments and arguments[0] in subcommands:
        return subcommands[arguments[0]](arguments[1:])
    return plan_run_report(arguments)


def plan_run_report(arguments: Sequence[str]) -> int:
    """Plan, run and report; exit with 1 where a run has failed."""
    parser = command.Parser(
        "Run a study: plan it, train what is not done, report. Also: `study.py report DIR` writes the report of what is"
        " stored, `study.py store DIR` keeps it, `study.py index` writes the README's table of claims."
    )
    parser.add_argument("--study", required=True, metavar="FILE[:SCALE]", help="a Python file with get_config()")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the study's directory, new or begun")
    parser.add_argument("--scale", metavar="SCALE", help="small or full, as far as the file has it")
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s")
    parser.add_argument("--launcher", choices=("none", "slurm", "local"), default="none", help="submit the workers")
    parser.add_argument(
        "--launcher-parameter", action="append", default=[], metavar="NAME=VALUE", help="for submitit's executor"
    )
    parser.add_argument("--mode", choices=tuple(MODES), default="auto", help="how the runs of a program are trained")
    parser.add_argument("--retry", action="store_true", help="train failed runs again")
    known, overrides = parser.parse_known_args(arguments)
    if known.workers < 1:
        raise UserError(f"--workers={known.workers}: at least 1")
    several = known.launcher == "none" and known.workers > 1
    if several:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # of a GPU, which the workers share
    import jax

    from cnn_jax.study.cell import Plan, write_plan
    from cnn_jax.study.stored import forget_failures, is_done, write_study
    from cnn_jax.study.workers import as_a_worker, have_own_cores, submit, work_in, workers_that_wait

    study = _study(known.study, known.scale, overrides)
    directory = work_directory_path(known.workdir, example="studies/first")
    if not known.plan:
        require_writable(directory)  # before a step is measured
    reference, digest = _origin(known.study, study.scale)
    command_of_worker = [sys.executable, str(HERE / "study.py"), "work", str(directory), f"--workers={known.workers}"]
    of_a_worker = functools.partial(as_a_worker, known.workers if known.launcher == "none" else 1)
    if known.retry and not known.plan:
        write_study(directory, study)  # or it says that the directory holds another one
        forget_failures(directory)
    with of_a_worker():  # JAX gets its device here
        cells = _planned_cells(study, directory)
    mode = _mode_so_far(directory, known)
    if known.plan:
        with of_a_worker():
            _measured_mode(cells, directory, mode, workers=known.workers)
        return 0
    left = any(not is_done(built.cell.folder(directory)) for built in cells)

    def write(mode: Any) -> None:
        plan = Plan(
            cells=tuple(built.cell for built in cells),
            reference=reference,
            sha256=digest,
            mode=mode,
            arguments=(*overrides, f"--workers={known.workers}", *([f"--mode={_name_of(mode)}"] if mode else [])),
        )
        write_plan(directory, plan)

    write_study(directory, study)
    write(mode)
    with contextlib.ExitStack() as opened:
        waiting = workers_that_wait(directory, command_of_worker, workers=known.workers)
        # On cores of their own they get ready while a step is measured.
        beside = several and left and have_own_cores(known.workers) and jax.default_backend() == "cpu"
        finish = opened.enter_context(waiting) if beside else None
        with of_a_worker():
            mode = _measured_mode(cells, directory, mode, workers=known.workers)
        write(mode)
        if several and left:
            finish = finish or opened.enter_context(waiting)
            finish(print)
    if left and known.launcher != "none":
        parameters = dict(_parameter(text) for text in known.launcher_parameter)
        submit(directory, launcher=known.launcher, workers=known.workers, mode=mode, parameters=parameters, note=print)
    elif left and not several:
        work_in(str(directory), 0, 1, mode)
    return report([str(directory)])


def _name_of(mode: str) -> str:
    return next(name for name, value in MODES.items() if value == mode)


def _origin(reference: str, scale: str) -> tuple[str, str]:
    """The study's file with its scale, and its digest."""
    file = pathlib.Path(reference if pathlib.Path(reference).is_file() else reference.rpartition(":")[0]).resolve()
    root = HERE.parent
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return f"{name}:{scale}" if scale != "small" else name, hashlib.sha256(file.read_bytes()).hexdigest()


def _study(reference: str, scale: str | None, overrides: Sequence[str]) -> Any:
    from cnn_jax.study.spec import load_study

    if scale is not None:
        path = reference if pathlib.Path(reference).is_file() else reference.rpartition(":")[0]
        reference = f"{path}:{scale}"
    return load_study(reference, overrides=overrides)


def _planned_cells(study: Any, directory: pathlib.Path) -> list[Any]:
    """Build the cells, and show their matrix."""
    from cnn_jax.study.build import Experiments, study_cells, trial_cells
    from cnn_jax.study.plan import matrix
    from cnn_jax.study.stored import is_done
    from cnn_jax.study.tuning import choose

    quiet: Callable[[str], None] = lambda _: None  # noqa: E731
    experiments = Experiments(study)
    trials = trial_cells(study, experiments, quiet)
    known_choice = trials and all(is_done(built.cell.folder(directory)) for built in trials)
    chosen = choose(study, [built.cell for built in trials], directory) if known_choice else {}
    cells = [*trials, *study_cells(study, experiments, chosen, quiet)]
    console = rich.console.Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    table = rich.table.Table(title=f"{study.id}: {study.claim}")
    for name in ("variant", "runs", "left", "program", "parameters", "MACs", "steps", "changes"):
        table.add_column(name, justify="left" if name in ("variant", "changes") else "right")
    for row in matrix(study, cells, directory):
        numbers = (row.runs, row.left, row.program, row.parameters, row.macs, row.steps)
        table.add_row(row.variant, *(f"{number:,}" for number in numbers), row.changes)
    console.print(table)
    return cells


def _mode_so_far(directory: pathlib.Path, known: Any) -> Any:
    """How runs of a program are trained, if that is known before a step is measured."""
    from cnn_jax.study.cell import PLAN, read_plan

    mode = MODES[known.mode]
    if mode is None and (directory / PLAN).exists():
        return read_plan(directory).mode  # runs of both modes differ in their last bits
    return mode


def _measured_mode(cells: Sequence[Any], directory: pathlib.Path, mode: Any, *, workers: int) -> Any:
    """How runs of a program are trained, and how long that takes, told to the user."""
    from cnn_jax.study.groups import groups_of
    from cnn_jax.study.plan import estimated_seconds, measure, show_seconds
    from cnn_jax.study.stored import is_done

    left = [built for built in cells if not is_done(built.cell.folder(directory))]
    if not left:
        print("all runs are done")
        return mode
    measured = measure(left, mode=mode, workers=workers)
    seconds = estimated_seconds(cells, measured, directory, workers=workers)
    if measured.together is not None:
        compared = f", {1e3 * measured.together:.2f} ms where several are trained at once"
    elif mode is None and len(left) > 1:
        compared = ", not measured where several are trained at once, because that takes long to compile"
    else:
        compared = ""
    print(
        f"{len(left)} runs are left, {len(groups_of(left))} programs to compile. A step of {measured.variant} takes"
        f" {1e3 * measured.in_turn:.2f} ms alone{compared} ({measured.device}):"
        f" the runs of a program are trained {'at once' if measured.mode == 'vmap' else 'in turn'}."
        f" About {show_seconds(seconds)} with {workers} worker{'s' if workers > 1 else ''}."
    )
    return measured.mode


def _parameter(text: str) -> tuple[str, Any]:
    from cnn_jax.train.config_file import parse_value

    name, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--launcher-parameter={text}: write NAME=VALUE, such as slurm_partition=gpu")
    return name, parse_value(value)


def work(arguments: Sequence[str]) -> int:
    """Work on a study that was begun; what `--workers` starts, and what another machine may be given."""
    parser = command.Parser("Work on a study that was begun, until all of its runs are done.")
    parser.add_argument("directory", metavar="DIR", help="the study's directory")
    parser.add_argument("--worker", type=int, default=0, metavar="I", help="which one this is, from 0")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="how many there are")
    parser.add_argument("--mode", choices=tuple(MODES), default="auto", help="how the runs of a program are trained")
    parser.add_argument("--parent", type=int, metavar="PROCESS", help="end when this one has ended")
    parser.add_argument("--wait", action="store_true", help="begin when a line on standard input says so")
    known = parser.parse_args(arguments)
    from cnn_jax.study.workers import join, wait_to_begin, work_in

    cores = [] if known.parent is None else join(known.worker, known.workers, known.parent, wait=known.wait)
    directory = str(pathlib.Path(known.directory).expanduser())
    wait = functools.partial(wait_to_begin, cores) if known.wait else None
    work_in(directory, known.worker, known.workers, MODES[known.mode], wait=wait)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Write the report of what is stored; exit with 1 where a run failed or is missing."""
    parser = command.Parser("Write the report of what is stored in a study's directory.")
    parser.add_argument("directory", metavar="DIR", help="the study's directory")
    parser.add_argument(
        "--study",
        metavar="FILE[:SCALE]",
        help="judge the stored runs by what this file compares; its runs are the same",
    )
    known = parser.parse_args(arguments)
    directory = pathlib.Path(known.directory).expanduser()
    from cnn_jax.study.make_report import judge_anew, make_report

    if known.study is not None:
        study = _study(known.study, None, ())
        judge_anew(directory, study, *_origin(known.study, study.scale))
    analysis, rows = make_report(directory)
    print(analysis.sentence)
    for warning in analysis.warnings:
        print(f"warning: {warning}")
    print(f"Report: {directory / 'report.md'} and report.html beside it")
    return 1 if any(row.status in ("failed", "missing") for row in rows) else 0


def store(arguments: Sequence[str]) -> int:
    """Keep a study's rows, report and figures in the repository."""
    parser = command.Parser(f"Keep a study's rows, report and figures in {RESULTS}.")
    parser.add_argument("directory", metavar="DIR", help="the study's directory")
    directory = pathlib.Path(parser.parse_args(arguments).directory).expanduser()
    from cnn_jax.study.make_report import keep_report

    print(f"wrote {keep_report(directory, RESULTS)}; `python experiments/study.py index` writes the README's table")
    return 0


def index(arguments: Sequence[str]) -> int:
    """Write the README's table of claims from the stored results."""
    parser = command.Parser("Write the README's table of claims from experiments/results.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if out of date")
    known = parser.parse_args(arguments)
    from cnn_jax.study.index import BEGIN, END, claims_table

    table = claims_table(RESULTS, readme=README)
    remedy = "python experiments/study.py index"
    command.write_section(README, table, begin=BEGIN, end=END, remedy=remedy, check=known.check)
    return 0


if __name__ == "__main__":
    command.run(main, goes_on_with="")
