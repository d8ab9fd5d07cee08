"""What an inspection of a data set found: `data.json` for programs, and sections for a terminal or Markdown."""

import collections
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cnn_jax.data.duplicates import Copies, find_copies
from cnn_jax.data.inspection import Inspection, moments
from cnn_jax.train.markdown_text import escape

COMMON_SIZES = 20
GROUPS, MEMBERS = 1000, 20
"""Groups of copies that are listed, and members of each."""
NAMES = 5
"""Names of classes in one line."""


class Section(NamedTuple):
    """A part of the report: a table whose first columns are `texts` and the others numbers, and lines below it."""

    title: str
    columns: tuple[str, ...] = ()
    texts: int = 0
    rows: Sequence[tuple[str, ...]] = ()
    lines: Sequence[str] = ()


def describe(
    inspections: Mapping[str, Inspection],
    *,
    origins: Mapping[str, str],
    class_names: Sequence[str],
    name_of: Callable[[str, int], str],
) -> dict[str, Any]:
    """Everything that was found, as JSON values.

    Args:
      inspections: of each split.
      origins: source, slice and wrappers of each.
      class_names: one name per class.
      name_of: a split and a position in it to the example's name; called for copies only.
    """
    splits = {
        split: {"origin": origins[split], **_describe_split(inspection, class_names)}
        for split, inspection in inspections.items()
    }
    copies = {}
    for kind in ("equal", "mirrored"):
        groups = find_copies(inspections, mirrored=kind == "mirrored")
        copies[kind] = {
            "groups": len(groups),
            "examples": sum(len(group.members) for group in groups),
            "across_splits": sum(group.leak for group in groups),
            "different_labels": sum(group.conflict for group in groups),
            "listed": [_describe_copies(group, inspections, class_names, name_of) for group in groups[:GROUPS]],
        }
    found = {"class_names": list(class_names), "splits": splits, "copies": copies}
    return {"findings": findings(found), **found}


def _describe_split(inspection: Inspection, class_names: Sequence[str]) -> dict[str, Any]:
    counts = inspection.class_counts.tolist()
    present = [count for count in counts if count]
    moments_of = {count: moments(levels) for count, levels in sorted(inspection.levels.items())}
    return {
        "examples": len(inspection),
        "class_counts": counts,
        "empty_classes": [name for name, count in zip(class_names, counts, strict=True) if not count],
        "largest_to_smallest": max(present) / min(present) if present else None,
        "labels_outside": inspection.outside,
        "sizes": _describe_sizes(inspection.sizes),
        "forms": dict(collections.Counter(inspection.forms).most_common()),
        "levels": [{"channels": c, "mean": list(mean), "std": list(std)} for c, (mean, std) in moments_of.items()],
        "corrupt": list(inspection.corrupt),
        "misnamed": list(inspection.misnamed),
    }


def _describe_sizes(sizes: Mapping[tuple[int, ...], int]) -> dict[str, Any]:
    """Least, median and largest are of each axis for itself."""
    if not sizes:
        return {"distinct": 0, "most_common": []}
    axes = range(max(map(len, sizes)))
    # Images of fewer axes have none of the later ones.
    lengths = [collections.Counter() for _ in axes]
    for size, count in sizes.items():
        for axis, length in enumerate(size):
            lengths[axis][length] += count
    return {
        "distinct": len(sizes),
        "least": [min(axis) for axis in lengths],
        "median": [statistics.median_low(axis.elements()) for axis in lengths],
        "largest": [max(axis) for axis in lengths],
        "most_common": [
            {"size": list(size), "examples": count}
            for size, count in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:COMMON_SIZES]
        ],
    }


def _describe_copies(
    copies: Copies,
    inspections: Mapping[str, Inspection],
    class_names: Sequence[str],
    name_of: Callable[[str, int], str],
) -> dict[str, Any]:
    members = []
    for split, position in copies.members[:MEMBERS]:
        label = int(inspections[split].labels[position])
        known = class_names[label] if 0 <= label < len(class_names) else None
        # A file's name need not be UTF-8, but JSON is.
        name = name_of(split, position).encode("utf-8", errors="backslashreplace").decode()
        members.append({"split": split, "name": name, "label": label, "class": known})
    return {
        "across_splits": copies.leak,
        "different_labels": copies.conflict,
        "examples": len(copies.members),
        "members": members,
    }


def findings(found: Mapping[str, Any]) -> list[str]:
    """What makes `--strict` fail, one line each: leakage, images that cannot be read, classes without an example.

    Args:
      found: of `describe`.
    """
    lines = []
    equal = found["copies"]["equal"]
    if equal["across_splits"]:
        lines.append(f"leakage: {_count(equal['across_splits'], 'image')} in more than one split")
    for split, one in found["splits"].items():
        if one["corrupt"]:
            lines.append(f"{split}: {len(one['corrupt']):,} of {_count(one['examples'], 'image')} cannot be read")
        if one["empty_classes"]:
            lines.append(f"{split}: no example of {_names(one['empty_classes'])}")
        if one["labels_outside"]:
            known = len(one["class_counts"])
            lines.append(f"{split}: {_count(one['labels_outside'], 'label')} outside [0, {known})")
    return lines


def sections(found: Mapping[str, Any]) -> Iterator[Section]:
    """The report, part by part, the findings first.

    Args:
      found: of `describe`.
    """
    splits = found["splits"]
    yield Section("Findings", lines=found["findings"] or ["no leakage, no damaged image, no class without an example"])
    rows = [
        (split, one["origin"], f"{one['examples']:,}", _ratio(one["largest_to_smallest"]), f"{len(one['corrupt']):,}")
        for split, one in splits.items()
    ]
    yield Section("Splits", ("split", "origin", "examples", "largest : smallest class", "not readable"), 2, rows)
    rows = [
        (name, *(_share(one["class_counts"][label], one["examples"]) for one in splits.values()))
        for label, name in enumerate(found["class_names"])
    ]
    yield Section("Classes", ("class", *splits), 1, rows)
    rows = []
    for split, one in splits.items():
        sizes = one["sizes"]
        if sizes["distinct"]:
            common = sizes["most_common"][0]
            ends = [_times(sizes[name]) for name in ("least", "median", "largest")]
            most = f"{_times(common['size'])}, {_share(common['examples'], one['examples'])}"
            rows.append((split, f"{sizes['distinct']:,}", *ends, most))
    columns = ("split", "distinct sizes", "least", "median", "largest", "most common")
    note = "Height × width before the transforms; least, median and largest of each axis for itself."
    yield Section("Sizes", columns, 1, rows, [note])
    rows = [
        (split, form, _share(count, one["examples"]))
        for split, one in splits.items()
        for form, count in one["forms"].items()
    ]
    yield Section("Formats", ("split", "as stored", "examples"), 2, rows)
    yield _levels(splits)
    for key, title in (("corrupt", "Images that cannot be read"), ("misnamed", "Files of another format than named")):
        lines = [f"{split}: {line}" for split, one in splits.items() for line in one[key]]
        if lines:
            yield Section(f"{title}: {len(lines):,}", lines=lines)
    for kind, title in (("equal", "Equal images"), ("mirrored", "Mirror images, left to right")):
        copies = found["copies"][kind]
        if not copies["groups"]:
            yield Section(title, lines=["none, within a split or across splits"])
            continue
        counts = (
            f"{_count(copies['groups'], 'group')} of {copies['examples']:,} examples,"
            f" {copies['across_splits']:,} across splits, {copies['different_labels']:,} with different labels"
        )
        lines = [_copies_line(group) for group in copies["listed"]]
        if copies["groups"] > len(lines):
            lines.append(f"and {copies['groups'] - len(lines):,} more groups")
        yield Section(f"{title}: {counts}", lines=lines)


def _levels(splits: Mapping[str, Any]) -> Section:
    rows, lines = [], ["In units of [0, 1], of all pixels after the transforms that are not random."]
    for split, one in splits.items():
        for level in one["levels"]:
            for channel, numbers in enumerate(zip(level["mean"], level["std"], strict=True)):
                name = f"{channel + 1} of {level['channels']}"
                rows.append((split, name, *(f"{number:.4f}" for number in numbers)))
        if len(one["levels"]) > 1:
            lines.append(f"{split} has images of several numbers of channels; set data.channels.")
    first, one = next(iter(splits.items()))
    if len(one["levels"]) == 1:
        # In full: a config with these numbers is the one that measures them itself.
        mean, std = (tuple(one["levels"][0][name]) for name in ("mean", "std"))
        lines.append(f'For config.data, of {first}: "mean": {mean}, "std": {std},')
    return Section("Levels", ("split", "channel", "mean", "deviation"), 2, rows, lines)


def markdown(title: str, parts: Sequence[Section]) -> str:
    """A whole report as GitHub Markdown."""
    lines = [f"# {escape(title)}"]
    for part in parts:
        lines += ["", f"## {escape(part.title)}"]
        if part.columns:
            rule = ["---" if place < part.texts else "---:" for place in range(len(part.columns))]
            lines.append("")
            lines += [f"| {' | '.join(map(escape, row))} |" for row in (part.columns, rule, *part.rows)]
        if part.lines:
            lines += ["", *(f"- {escape(line)}" for line in part.lines)]
    return "\n".join(lines) + "\n"


def _copies_line(group: Mapping[str, Any]) -> str:
    members = [f"{one['split']} {one['name']!r} ({one['class'] or one['label']})" for one in group["members"]]
    if group["examples"] > len(members):
        members.append(f"{group['examples'] - len(members):,} more")
    marks = [mark for mark, key in (("LEAK", "across_splits"), ("LABELS DIFFER", "different_labels")) if group[key]]
    return " ".join([*marks, " = ".join(members)])


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
    return ", ".join(map(repr, names[:NAMES])) + more


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(count: int, whole: int) -> str:
    return f"{count:,} ({100 * count / whole:.1f} %)"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
