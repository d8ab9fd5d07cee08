"""Files of every kind that is read, damaged and recombined at random: each is read or refused, whatever is in it.

`python tests/hostile/fuzzing.py SECONDS [SEED]` does so for a while, and prints how many and what was found.
"""

import io
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
from PIL import Image

INTERESTING = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\n",
    b'"',
    b"[",
]
REFERENCE = pathlib.Path(__file__).parent.parent / "reference" / "pth"


def images():
    """Small files of every format, by name."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    image = Image.fromarray(noise)
    forms = {
        **{"a.jpg": {"format": "JPEG"}, "b.jpg": {"format": "JPEG", "progressive": True}, "a.png": {"format": "PNG"}},
        **{"a.webp": {"format": "WEBP"}, "b.webp": {"format": "WEBP", "lossless": True}, "a.gif": {"format": "GIF"}},
        **{"a.bmp": {"format": "BMP"}, "a.tif": {"format": "TIFF", "compression": "tiff_lzw"}},
        **{"b.tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"}, "a.ppm": {"format": "PPM"}},
        **{"a.jp2": {"format": "JPEG2000"}, "a.avif": {"format": "AVIF"}},
    }
    for name, options in forms.items():
        file = io.BytesIO()
        image.save(file, **options)
        yield "image", name, file.getvalue()


def arrays():
    """Archives of arrays and folders of one, as (reader, name, content)."""
    values = {"images": np.zeros((4, 3, 3), np.uint8), "labels": np.arange(4), "class_names": np.array(list("abcd"))}
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **values)
        yield "arrays", "a.npz", file.getvalue()


def weights():
    """Torch's files and safetensors."""
    from safetensors.numpy import save

    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int64), "c": np.zeros((), np.float16)}
    yield "weights", "a.safetensors", save(arrays, {"format": "pt"})
    for path in sorted(REFERENCE.glob("*.pth")):
        yield "weights", "a.pth", path.read_bytes()


def tables():
    """A parquet file, which is read as the one in its folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    *_, picture = next(images())
    rows = [{"bytes": picture, "path": f"{index}.jpg"} for index in range(6)]
    for labels in ([0, 1, 2, 0, 1, 2], list("abcabc")):
        file = io.BytesIO()
        pq.write_table(pa.table({"image": rows, "label": labels}), file, row_group_size=2)
        yield "parquet", "set/train.parquet", file.getvalue()


def results():
    """JSON, logs and rows."""
    result = {"status": "completed", "metrics": {"a": 0.5, "b": None}, "list": [1, [2, {"c": "ü\n"}]], "n": 10**20}
    yield "json", "result.json", json.dumps(result).encode()
    yield "rows", "metrics.jsonl", b"".join(json.dumps({"step": s, "a": s / 3}).encode() + b"\n" for s in range(5))
    header = "variant,seed,status,key,commit,hardware,data,chosen,message,a\n"
    row = 'x,0,completed,k,c,h,"{""train"": ""0""}",,"a, b",0.5\n'
    yield "results", "results.csv", (header + row).encode()


def corpus():
    """(reader, name, content) of whole files."""
    return [item for make in (images, arrays, weights, tables, results) for item in make()]


def mutated(content, others, rng):
    """The file with some bytes changed, removed, repeated, or taken from another file of its kind."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not data:
            break
        at = rng.randrange(len(data))
        length = min(len(data) - at, rng.choice((1, 2, 4, 8, 64, 1024)))
        kind = rng.randrange(8)
        if kind < 3:
            data[at] = rng.randrange(256)
        elif kind == 3:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            piece = rng.choice(INTERESTING)
            data[at : at + len(piece)] = piece
        elif kind == 5:
            del data[at : at + length]
        elif kind == 6:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


def packed(reader, content, rng):
    """An archive of arrays anew, with one member damaged: its checksum is right again."""
    if reader != "arrays" or rng.randrange(2):
        return None
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name in whole.namelist():
            member = whole.read(name)
            file.writestr(name, mutated(member, [member], rng) if rng.randrange(2) else member)
    return made.getvalue()


class Fuzzer:
    """Damaged files, and what the reading process says of them.

    Args:
      folder: to write into.
      seed: of the damage.
      environment: of the process.
    """

    def __init__(self, folder, *, seed, environment):
        self._folder, self._rng, self._corpus = pathlib.Path(folder), random.Random(seed), corpus()
        script = pathlib.Path(__file__).with_name("reading.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def next(self):
        """(reader, content, answer) of one more file."""
        reader, name, whole = self._rng.choice(self._corpus)
        others = [content for kind, _, content in self._corpus if kind == reader]
        content = packed(reader, whole, self._rng) or mutated(whole, others, self._rng)
        path = self._folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        self._process.stdin.write(json.dumps([reader, str(path.parent if reader == "parquet" else path)]) + "\n")
        self._process.stdin.flush()
        return reader, content, json.loads(self._process.stdout.readline())

    def close(self):
        """End the process."""
        with self._process:
            self._process.stdin.close()


def bad(answer):
    """Whether something came of a file that must not."""
    return (
        answer["outcome"] not in ("read", "refused")
        or answer["megabytes"] > 300
        or answer["seconds"] > 10
        or "\n" in answer["message"]
    )


def main(seconds, seed):
    """Fuzz for so many seconds; keeps what is bad."""
    import collections
    import os
    import time

    kept = pathlib.Path(tempfile.mkdtemp(prefix="fuzzed-"))
    fuzzer = Fuzzer(kept / "files", seed=seed, environment={**os.environ, "JAX_PLATFORMS": "cpu"})
    until, counts = time.monotonic() + seconds, collections.Counter()
    while time.monotonic() < until:
        reader, content, answer = fuzzer.next()
        counts[f"{reader} {answer['outcome']}"] += 1
        if bad(answer):
            counts["bad"] += 1
            path = kept / f"bad{counts['bad']}"
            path.write_bytes(content)
            print(reader, path, answer, flush=True)
    fuzzer.close()
    print(sum(counts.values()) - counts["bad"], "files,", dict(sorted(counts.items())))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
