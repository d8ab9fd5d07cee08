"""Reads one file after the other in children of their own, and tells what came of it, in how much memory and time.

A line of standard input is `[reader, path]`, that of the answer `{"outcome", "message", "megabytes", "seconds"}`. The
memory is what the child grew by; its address space is limited, so that what has no bounds ends there.
"""

import json
import os
import pathlib
import resource
import signal
import sys
import time
import warnings

ADDRESS_SPACE = 6 * 2**30
MOST_SECONDS = 20


def read_weights(path):
    from cnn_jax.weights import files

    files.read_metadata(path)
    return len(files.read(path))


def read_data(source, path):
    opened = source(str(path), directory=None, split_seed=0)
    for split in opened.sizes:
        if opened.examples_of is not None:
            opened.examples(split).description()
    return [len(opened.load(split, on_corrupt="skip", max_corrupt=100).images) for split in opened.sizes]


def read_arrays(path):
    from cnn_jax.data.array_files import array_source

    return read_data(array_source, path)


def read_folder(path):
    from cnn_jax.data.folder import folder_source

    return read_data(folder_source, path)


def read_parquet(path):
    from cnn_jax.data.parquet import parquet_source

    return read_data(parquet_source, path)


def read_image(path):
    from cnn_jax.weights.preprocess import read_image

    return read_image(path).shape


def read_json(path):
    from cnn_jax.train.run_directory import read_json

    return len(read_json(path))


def read_rows(path):
    from cnn_jax.train.writers import read_rows

    return len(read_rows(path))


def read_results(path):
    from cnn_jax.study.tables import read_results

    return len(read_results(path))


READERS = {
    name.removeprefix("read_"): function for name, function in list(globals().items()) if name.startswith("read_")
}


def attempt(reader, path):
    """In the child: outcome and message."""
    from cnn_jax.errors import UserError

    warnings.simplefilter("ignore")
    try:
        return "read", str(READERS[reader](pathlib.Path(path)))
    except UserError as error:
        return "refused", str(error)
    except BaseException as error:  # noqa: BLE001 - what comes out is the result
        return "crashed", f"{type(error).__name__}: {str(error)[:300]}"


def watched(reader, path):
    """What the child said, or how it ended."""
    answer, tell = os.pipe()
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(MOST_SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff says there what it does not like
        with os.fdopen(tell, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(attempt(reader, path), file)
        os._exit(0)
    os.close(tell)
    with os.fdopen(answer, encoding="utf-8") as file:
        text = file.read()
    _, status, usage = os.wait4(child, 0)
    outcome, message = json.loads(text) if status == 0 else ("died", f"status {status}")
    seconds = time.monotonic() - started
    return {
        "outcome": outcome,
        "message": message,
        "megabytes": (usage.ru_maxrss - before) // 1024,
        "seconds": seconds,
    }


def prepare():
    """What every child needs is imported once."""
    import pyarrow.parquet
    import simplejpeg
    from PIL import Image

    import cnn_jax.data.array_files
    import cnn_jax.data.folder
    import cnn_jax.data.parquet
    import cnn_jax.study.tables
    import cnn_jax.train.run_directory
    import cnn_jax.train.writers
    import cnn_jax.weights.files
    import cnn_jax.weights.preprocess  # noqa: F401

    Image.init()
    del pyarrow, simplejpeg


if __name__ == "__main__":
    prepare()
    for line in sys.stdin:
        print(json.dumps(watched(*json.loads(line))), flush=True)
