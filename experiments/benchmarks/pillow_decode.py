"""The peer of the streaming benchmark: Pillow alone, which decodes the JPEG files of a folder to RGB and no more.

A pool has as many threads, or processes, as there are cores. One JSON object a line comes in and one goes out, see
`cnn_jax/benchmark/data_worker.py`.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import PIL
from PIL import Image

POOLS: dict[str, Callable[[int], Executor]] = {"processes": ProcessPoolExecutor, "threads": ThreadPoolExecutor}
"""Processes first: they are copies of this one, which must not have threads then."""
FILES_PER_TASK = 16


def decode(paths: list[str]) -> int:
    """Decode files; how many pixels they had."""
    pixels = 0
    for path in paths:
        with Image.open(path) as image:
            width, height = image.convert("RGB").size
        pixels += width * height
    return pixels


def decode_all(pool: Executor, paths: list[str], count: int) -> int:
    """Decode this many files of a list, which begins again after its end."""
    wanted = [paths[index % len(paths)] for index in range(count)]
    return sum(pool.map(decode, (wanted[i : i + FILES_PER_TASK] for i in range(0, count, FILES_PER_TASK))))


def main() -> None:
    """Answer requests until the standard input ends."""
    pools: dict[str, Executor] = {}
    paths: list[str] = []
    size = 0
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        started = time.perf_counter()
        if request["do"] == "describe":
            size = request["row"]["batch_size"]
            paths = sorted(str(path) for path in pathlib.Path(request["row"]["folder"]).rglob("*.jpg"))
            answer = {"examples": size, "versions": {"pillow": PIL.__version__}, "variants": list(POOLS)}
        else:
            if request["do"] == "prepare":
                pools[request["variant"]] = POOLS[request["variant"]](int(sys.argv[1]))
            steps = request["steps" if request["do"] == "run" else "warm_up"]
            decode_all(pools[request["variant"]], paths, steps * size)
            answer["seconds"] = time.perf_counter() - started
        print(json.dumps(answer), flush=True)
    for pool in pools.values():
        pool.shutdown()


if __name__ == "__main__":
    main()
