"""Data sets from strangers: bombs, lies, pipes and devices are refused or skipped, in little memory and time."""

import hashlib
import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest

from cnn_jax.data import decoded
from cnn_jax.data.sources import open_source
from cnn_jax.errors import UserError
from cnn_jax.ops.jpeg import FEW_SCANS, has_too_many_scans

WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002f0fe7c309071011fd0f4444ff03")
"""A whole image of 10,000×10,000 pixels, which take 1.6 GB to decode."""
LABELS = np.arange(4) % 2
IMAGES = np.zeros((4, 2, 2), np.uint8)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text, *, version=1, declared=None):
    """An .npy file's header of any text."""
    content = text.encode("latin1")
    size = len(content) if declared is None else declared
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 if version == 1 else 4, "little") + content


def described(kind, shape):
    return header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}")


def write_npz(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as file:
        for name, content in {"images": npy(IMAGES), "labels": npy(LABELS), **members}.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                for part in [content] if isinstance(content, bytes) else content:
                    member.write(part)
    return path


def test_an_npz_member_that_unpacks_to_hundreds_of_its_size_is_refused(tmp_path, refused):
    zeros = [described("|u1", "(4, 8192, 8192)"), *([bytes(2**24)] * 16)]
    path = write_npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, images=zeros)
    assert path.stat().st_size < 2**21
    refused("arrays", path, "images' would unpack to 268,435,", megabytes=30)


def test_an_npz_header_that_unpacks_to_megabytes_is_not_unpacked(tmp_path, refused):
    spaces = [header("", version=2, declared=2**26 - 12), *([b" " * 2**22] * 15), b" " * (2**22 - 12)]
    path = write_npz(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, images=spaces)
    refused("arrays", path, "images' is damaged or no array", megabytes=30)


def test_texts_without_characters_are_no_endless_class_names(tmp_path, refused):
    refused("arrays", write_npz(tmp_path / "a.npz", class_names=described("<U0", "(3000000000,)")), "is damaged")


def test_an_npz_may_not_have_a_member_twice(tmp_path, refused):
    path = write_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("images", npy(IMAGES))
    refused("arrays", path, "images' is in the archive twice")


def test_an_npz_whose_sizes_lie_is_refused(tmp_path, refused):
    path = write_npz(tmp_path / "a.npz", images=described("|u1", "(4, 40000, 40000)"))
    data = bytearray(path.read_bytes())
    at = data.index(b"images.npy", data.index(b"PK\x01\x02")) - 46
    size = len(described("|u1", "(4, 40000, 40000)")) + 4 * 40000 * 40000
    data[at + 24 : at + 28] = struct.pack("<I", size % 2**32)
    path.write_bytes(data)
    refused("arrays", path, "unpack to")


@pytest.mark.parametrize(
    "text", ["{'descr': '|u1', 'shape': (1,", "{" * 9000, "(" * 9000, "-" * 9990, "'''", "{1L:2", "\x00", " x\n y\nz"]
)
def test_headers_that_are_no_python_are_one_line(text, tmp_path, refused):
    refused("arrays", write_npz(tmp_path / "a.npz", images=header(text)), "is damaged or no array")


@pytest.mark.parametrize("name", ["a\nb", "\x1b]0;title\x07", "x" * 2000])
def test_names_that_steer_a_terminal_are_no_classes(name, tmp_path, refused):
    names = npy(np.array(["cat", name]))
    message = refused("arrays", write_npz(tmp_path / "a.npz", class_names=names), "classes have printable names")
    assert message.isprintable()


@pytest.mark.parametrize("reader", ["arrays", "image", "json", "rows", "results", "weights"])
def test_a_pipe_or_device_is_not_waited_for(reader, tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.npz")
    refused(reader, tmp_path / "pipe.npz", "pipe or device", seconds=5)
    refused(reader, "/dev/zero", "pipe or device", seconds=5)


def test_pipes_and_devices_in_folders_of_arrays_and_tables_are_refused(tmp_path, refused):
    for name in ("arrays", "tables", "endless"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "arrays" / "images.npy")
    refused("arrays", tmp_path / "arrays", "pipe or device", seconds=5)
    os.mkfifo(tmp_path / "tables" / "train.parquet")
    refused("parquet", tmp_path / "tables", "is no file, but a pipe", seconds=5)
    os.symlink("/dev/zero", tmp_path / "endless" / "images.npy")
    refused("arrays", tmp_path / "endless", "pipe or device", seconds=5)


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("attack", ["objects", "no archive", "another array", "a header of code"])
def test_a_kept_file_with_the_right_digest_and_other_content_is_made_anew(attack, tmp_path, monkeypatch):
    monkeypatch.setenv(decoded.FOLDER, str(tmp_path / "kept"))
    (tmp_path / "set").mkdir()

    def read():
        return decoded.decoded(("train",), tmp_path / "set", lambda: (IMAGES, LABELS))

    read()
    (kept,) = (tmp_path / "kept").iterdir()
    file = io.BytesIO()
    members = {
        "objects": {"images": np.array([Attack(tmp_path / "marker")], object), "labels": LABELS},
        "another array": {"pictures": IMAGES},
    }
    np.savez(file, **members.get(attack, {}))
    content = {"no archive": b"PK\x03\x04", "a header of code": header("{1L:2")}.get(attack, file.getvalue())
    kept.write_bytes(hashlib.sha256(content).digest() + content)
    images, labels = read()
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert not (tmp_path / "marker").exists()


def folder_of_images(root):
    from PIL import Image

    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(np.full((8, 8, 3), 20 * index, np.uint8)).save(root / name / f"{index}.png")
    return root


def test_pipes_devices_and_files_of_zeros_in_a_list_of_images_are_skipped(tmp_path, attempt):
    root = folder_of_images(tmp_path / "set")
    os.mkfifo(root / "cat" / "pipe.png")
    os.symlink("/dev/zero", root / "cat" / "endless.png")
    with (root / "cat" / "zeros.png").open("wb") as file:
        file.truncate(5 * 2**30)
    lines = [f"cat/{name}.png" for name in ("0", "pipe", "endless", "zeros")]
    (root / "train.txt").write_text("\n".join([*lines, "dog/0.png"]), encoding="utf-8")
    assert attempt("folder", root, seconds=5) == ("read", "[2]")


def test_a_link_out_of_a_folder_gives_no_word_of_what_it_leads_to(tmp_path, attempt, refused):
    root = folder_of_images(tmp_path / "set")
    secret = tmp_path / "secret"
    secret.write_text("a password", encoding="utf-8")
    os.symlink(secret, root / "cat" / "link.png")
    assert attempt("folder", root)[0] == "read"
    assert "password" not in refused("image", root / "cat" / "link.png", "is no image")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *more, rows=None):
    packer = zlib.compressobj(9)
    line = bytes(1 + 3 * width)
    data = b"".join(packer.compress(line) for _ in range(height if rows is None else rows)) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", size), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_small_files_of_huge_images_are_refused_unread(kind, tmp_path, refused):
    from PIL import Image

    gif = bytearray(saved(Image.new("L", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 10_000, 10_000)
    content = {"WEBP": WEBP, "GIF": bytes(gif), "PNG": png(10_000, 10_000, rows=1)}[kind]
    assert len(content) < 2**10
    (tmp_path / "a").write_bytes(content)
    refused("image", tmp_path / "a", "declares 10000×10000 pixels", megabytes=100)


@pytest.mark.parametrize(("kind", "before"), [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")])
def test_bombs_in_the_texts_of_an_image_are_not_unpacked(kind, before, tmp_path, refused):
    (tmp_path / "a.png").write_bytes(png(8, 8, chunk(kind, before + zlib.compress(bytes(2**27), 1))))
    refused("image", tmp_path / "a.png", "is damaged", megabytes=80)


def test_many_small_bombs_in_the_texts_of_an_image_are_refused(tmp_path, refused):
    text = zlib.compress(bytes(2**20 - 64), 9)
    (tmp_path / "a.png").write_bytes(png(8, 8, *(chunk(b"zTXt", b"k%d\0\0" % n + text) for n in range(200))))
    refused("image", tmp_path / "a.png", "is damaged")


def test_a_text_of_pixels_may_not_be_all_comments(tmp_path, refused, attempt):
    for count, comment in ((20, b"# a\n"), (100_000, b"#\n")):
        (tmp_path / "a.ppm").write_bytes(b"P3\n4 4\n255\n" + comment * count + b"1 " * 48)
        if count == 20:
            assert attempt("image", tmp_path / "a.ppm") == ("read", "(4, 4, 3)")
    refused("image", tmp_path / "a.ppm", "has more than 100 comments", seconds=3)


def test_an_archive_of_many_arrays_is_told_in_one_short_line(tmp_path, refused):
    many = {f"array {number}\x1b": npy(np.zeros(1)) for number in range(500)}
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in many.items():
            file.writestr(name, content)
    assert "and 450 more" in refused("arrays", path, "has the arrays")


def test_of_an_animation_one_frame_is_decoded(tmp_path, attempt):
    from PIL import Image

    frames = [Image.new("RGB", (300, 300), (shade, 0, 0)) for shade in range(100)]
    for kind in ("WEBP", "GIF", "PNG"):
        (tmp_path / "a").write_bytes(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert attempt("image", tmp_path / "a", megabytes=20) == ("read", "(300, 300, 3)")


def with_scans(size, count):
    """A progressive JPEG file whose last scan is there again and again."""
    from PIL import Image

    content = saved(Image.new("L", (size, size)), "JPEG", progressive=True, quality=5)
    tables = content.rfind(b"\xff\xc4", 0, content.rfind(b"\xff\xda"))
    return content[:-2] + content[tables:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_they_are_decoded(tmp_path, refused):
    (tmp_path / "a.jpg").write_bytes(with_scans(4000, 1000))
    refused("image", tmp_path / "a.jpg", "has more scans", seconds=5)


def test_a_jpeg_whose_colours_are_scanned_one_by_one_is_counted_too():
    from PIL import Image

    content = saved(Image.new("RGB", (64, 64)), "JPEG")
    at = content.index(b"\xff\xda")
    assert not has_too_many_scans(content[:-2] + content[at:-2] * 100, 2**40)  # only the first one is read
    one = b"\xff\xda\0\x08\1" + content[at + 5 : at + 7] + b"\0\x3f\0" + bytes(9)
    assert has_too_many_scans(content[:at] + one * 100, 2**40)


def test_scans_are_counted_as_the_decoder_sees_them(tmp_path, attempt):
    plain = with_scans(64, 0)
    assert not has_too_many_scans(plain, 2**40)
    assert has_too_many_scans(with_scans(64, 100), 2**30)
    assert not has_too_many_scans(with_scans(64, 100), 64 * 64)
    behind = plain + b"\xff\xda" * 10 * FEW_SCANS  # such as a film that a telephone puts behind its picture
    assert not has_too_many_scans(behind, 2**30)
    note = b"\xff\xfe" + (2 + 20 * FEW_SCANS).to_bytes(2, "big") + b"\xff\xda" * 10 * FEW_SCANS
    assert not has_too_many_scans(plain[:2] + note + plain[2:], 2**30)
    (tmp_path / "a.jpg").write_bytes(with_scans(64, 100))
    assert attempt("image", tmp_path / "a.jpg") == ("read", "(64, 64, 3)")


@pytest.mark.parametrize("order", ["<", ">"])
def test_class_names_of_numbers_that_are_no_characters_are_damage(tmp_path, order):
    names = np.frombuffer(np.array([0x110000, 0x41] * 2, f"{order}u4").tobytes(), f"{order}U2")
    np.savez(
        tmp_path / "bad.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 0, 1]), class_names=names
    )
    with pytest.raises(UserError, match=r"class_names.* is damaged: it has characters that no text has"):
        open_source("arrays", str(tmp_path / "bad.npz"))
