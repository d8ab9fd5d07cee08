"""Images that are not as they should be, and sets of too few of them."""

import io
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import STREAM, Bench, Case, changed, image_file, image_folder, on_folder, refused
from PIL import Image, ImageCms

from cnn_jax.data.sources import open_source
from cnn_jax.ops.image_files import decode_image
from cnn_jax.train.run import build
from cnn_jax.train.session import train

# Mode and format to the number of channels that are kept where none is asked for, or to the error.
MODES: dict[tuple[str, str], int | str] = {
    ("1", "PNG"): 1,
    ("L", "JPEG"): 1,
    ("LA", "PNG"): 4,
    ("P", "PNG"): 3,
    ("PA", "TIFF"): 4,
    ("RGB", "JPEG"): 3,
    ("RGBA", "PNG"): 4,
    ("RGBX", "TIFF"): 3,
    ("CMYK", "JPEG"): 3,
    ("YCbCr", "TIFF"): 3,
    ("LAB", "TIFF"): 3,
    ("I;16", "PNG"): 1,
    ("I;16", "TIFF"): 1,
    ("I", "TIFF"): r"'odd' has 32 bits per pixel \(mode I\); save it with 8 or 16",
    ("F", "TIFF"): r"'odd' has 32 bits per pixel \(mode F\); save it with 8 or 16",
}


def content_of(mode: str, kind: str) -> bytes:
    """A file of noise in a mode of Pillow's."""
    noise = np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8)
    image = Image.fromarray(noise)
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    elif mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257 + 128)  # what is rounded down
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    assert image is not None
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def every_mode(bench: Bench) -> None:
    for (mode, kind), kept in MODES.items():
        content = content_of(mode, kind)
        for channels in (None, 1, 3, 4):
            if isinstance(kept, str):
                refused(kept, decode_image, content, name="odd", channels=channels)
                continue
            pixels = decode_image(content, name="odd", channels=channels)
            assert (pixels.shape, pixels.dtype) == ((6, 7, channels or kept), np.uint8), (mode, kind, channels)


def sixteen_bits_are_scaled_not_clipped(bench: Bench) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8)[..., 0]
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(content_of("I;16", kind), name="odd", channels=3)
        np.testing.assert_array_equal(pixels, np.repeat(noise[..., None], 3, axis=2))


def modes_in_a_folder(bench: Bench) -> None:
    root = image_folder(bench.path / "images")
    for index, mode in enumerate(("1", "L", "LA", "P", "RGBA")):
        image_file(root / "train" / "cat" / f"{index}.png", mode=mode)
    assert build(on_folder(bench.config, root)).splits["train"].image_shape == (8, 8, 3)
    file = root / "train" / "dog" / "3.png"
    file.write_bytes(content_of("F", "TIFF"))
    refused(r"train/dog/3\.png' has 32 bits per pixel \(mode F\)", build, on_folder(bench.config, root))


def cut(file: pathlib.Path) -> pathlib.Path:
    """A JPEG file, half of it."""
    image_file(file, kind="JPEG", size=(32, 32))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def folder_with_a_cut_file(bench: Bench) -> pathlib.Path:
    root = image_folder(bench.path / "images", size=(32, 32))
    cut(root / "train" / "dog" / "cut.jpg")
    return root


def a_cut_jpeg_is_named(bench: Bench) -> None:
    root = folder_with_a_cut_file(bench)
    message = r"train/dog/cut\.jpg' (cannot be read|is damaged).*"
    refused(message, train, on_folder(bench.config, root), bench.path / "run")
    assert not (bench.path / "run").exists()
    # The shape of a stream's images is that of the first; the others are read when their step comes.
    experiment = build(on_folder(bench.config, root, **STREAM))
    refused(message + r'set data\.on_corrupt="skip"', lambda: [experiment.batch(step) for step in range(3)])


def a_cut_jpeg_is_skipped_and_counted(bench: Bench) -> None:
    root = folder_with_a_cut_file(bench)
    train_split = build(on_folder(bench.config, root, on_corrupt="skip")).splits["train"]
    assert (len(train_split), len(train_split.corrupt)) == (16, 1)
    assert "cut.jpg" in next(iter(train_split.corrupt))


def too_many_to_skip(bench: Bench) -> None:
    root = folder_with_a_cut_file(bench)
    config = on_folder(bench.config, root, on_corrupt="skip", max_corrupt=0)
    refused(r"more than 0 images cannot be read; the last: '.*cut\.jpg'", build, config)
    experiment = build({**config, "data": {**config["data"], **STREAM}})
    message = r"folder/images/train: 1 images cannot be read, data\.max_corrupt is 0; the last one: '.*cut\.jpg'"
    refused(message, lambda: [experiment.batch(step) for step in range(3)])


def inspection_finds_it(bench: Bench) -> None:
    bench.config.update(on_folder(bench.config, folder_with_a_cut_file(bench)))
    file = bench.config_file()
    assert bench.command("inspect_data", f"--config={file}", f"--workdir={bench.path / 'data'}", "--strict") == 1
    assert "cut.jpg" in (bench.path / "data" / "data.md").read_text(encoding="utf-8")


def imagenets_odd_files(bench: Bench) -> None:
    root = image_folder(bench.path / "images")
    image_file(root / "train" / "cat" / "png.JPEG", kind="PNG")
    image_file(root / "train" / "cat" / "cmyk.jpg", kind="JPEG", mode="CMYK")
    assert build(on_folder(bench.config, root)).splits["train"].image_shape == (8, 8, 3)


def png_that_declares(width: int, height: int) -> bytes:
    """A small PNG file of many pixels, by its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def a_bomb_is_named(bench: Bench) -> None:
    root = image_folder(bench.path / "images")
    # Pillow only warns of the first, and raises for the second.
    for size, message in {
        (10_000, 9_000): r"'.*bomb\.png' declares 10000×9000 pixels; 89,478,485 are allowed, make it smaller",
        (60_000, 60_000): r"'.*bomb\.png' declares more than the 89,478,485 pixels that are allowed; make it smaller",
    }.items():
        bomb = root / "train" / "cat" / "bomb.png"
        bomb.write_bytes(png_that_declares(*size))
        refused(message, build, on_folder(bench.config, root))
        resize = ({"name": "resize", "size": (8, 8)},)
        refused(message, build, on_folder(bench.config, root, transforms={"train": resize}))


def folders_of_nothing(bench: Bench) -> None:
    root = bench.path / "images"
    config = on_folder(bench.config, root)
    refused(r"config\.data\.name '.*images' does not exist; give the folder that holds the classes", build, config)
    root.mkdir()
    refused(r"images' has no folders; it needs one for each class", build, config)
    image_folder(root)
    (root / "train" / "fox").mkdir()
    message = r"class folder '.*images/train/fox' has no images \(\.jpg, \.jpeg, \.png, \.webp\); add some or delete it"
    refused(message, build, config)
    (root / "train" / "fox").rmdir()
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    refused(r"unknown split of folder/images 'test'.*Known: train", build, config)


def splits_of_nothing(bench: Bench) -> None:
    for spec in ("train[5000:]", "train[7:7]"):
        message = r"split 'train\[.*\]' of sklearn/digits is empty: 'train' has 1437 examples"
        refused(message, train, changed(bench.config, "data.splits.train", spec), bench.path / "run")
    config = changed(bench.config, "data.wrappers", {"train": ({"name": "fraction", "fraction": 0.001},)})
    refused(r"fraction", build, changed(config, "data.splits.train", "train[:2]"))
    assert not (bench.path / "run").exists()


def files_of_nothing(bench: Bench) -> None:
    np.savez(bench.path / "a.npz", train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros(0, int))
    refused(r"train_labels has shape \(0,\); labels must be \[N\]", open_source, "arrays", str(bench.path / "a.npz"))
    (bench.path / "set").mkdir()
    table = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    pq.write_table(table, bench.path / "set" / "train.parquet")
    source = open_source("parquet", str(bench.path / "set"))
    refused(r"split 'train' of parquet/set is empty: 'train' has 0 examples", source.load, "train")


def none_can_be_read(bench: Bench) -> None:
    root = image_folder(bench.path / "images")
    for file in (root / "train").rglob("*.png"):
        file.write_bytes(b"text")
    refused("none of the 16 images can be read; the first: '", build, on_folder(bench.config, root, on_corrupt="skip"))
    config = on_folder(bench.config, root, on_corrupt="skip", **STREAM)
    refused("folder/images/train: none of the 16 images can be read", build, config)


def a_batch_larger_than_the_split(bench: Bench) -> None:
    """No batch is dropped, so there is always one: it goes on into the next epochs."""
    experiment = build(changed(bench.config, "data.batch_size", 100))
    batch = experiment.batch(0)
    assert (batch["image"].shape[0], float(batch["mask"].sum())) == (100, 100.0)
    assert np.bincount(np.asarray(batch["epoch"])).tolist() == [64, 36]
    short = build(changed(bench.config, "train.duration", {"epochs": 1e-9}))
    assert short.plan.total == 1


ODD_MODES = (
    Case("every mode of Pillow", every_mode),
    Case("16 bits are scaled", sixteen_bits_are_scaled_not_clipped),
    Case("in a folder", modes_in_a_folder),
    "test_16_bits_in_several_channels_are_refused",
    "test_modes_are_converted_as_pillow_does",
)
CORRUPT_JPEG = (
    Case("is named", a_cut_jpeg_is_named),
    Case("is skipped and counted", a_cut_jpeg_is_skipped_and_counted),
    Case("up to a number", too_many_to_skip),
    Case("is found by inspection", inspection_finds_it),
    Case("ImageNet's odd files are read", imagenets_odd_files),
    "test_a_file_cut_anywhere_is_an_error_or_whole",
    "test_skipped_images_are_masked_and_counted_once",
    "test_the_digest_tells_content_selection_and_labels_apart",
)
IMAGE_BOMB = (Case("is named", a_bomb_is_named),)
NOTHING = (
    Case("folders", folders_of_nothing),
    Case("splits", splits_of_nothing),
    Case("files", files_of_nothing),
    Case("no image can be read", none_can_be_read),
    Case("a batch larger than the split", a_batch_larger_than_the_split),
)
