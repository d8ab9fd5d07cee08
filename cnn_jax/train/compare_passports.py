"""Two passports side by side: code, data, versions, hardware, flags and program; what is unknown is told apart."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_jax.train.differences import ABSENT, Difference, differences

Passport = Mapping[str, Any]
NO_CAUSE = ("host", "system")
"""Of the hardware: which machine it was, and its kernel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two passports say of each other.

    Attributes:
      changes: what numbers may depend on.
      aside: what they do not depend on: when, where and by which command.
      unknown: what cannot be compared, because one side does not say it; for people.
    """

    changes: Sequence[Difference]
    aside: Sequence[Difference]
    unknown: Sequence[str]


def compare_passports(then: Passport, now: Passport) -> Comparison:
    """What differs between two passports, whichever versions of the package wrote them."""
    changes, aside, unknown = _code(then, now)
    more, unknown_data = _data(section(then, "data"), section(now, "data"))
    changes += more
    unknown += unknown_data
    for name in ("versions", "hardware"):
        for each in differences(section(then, name), section(now, name), path=name):
            key = each.what.partition(".")[2]
            if key in NO_CAUSE:
                aside.append(each)
            elif ABSENT in (each.then, each.now):
                unknown.append(each.what)  # an older passport does not say it; a package that is needed is there
            else:
                changes.append(each)
    changes += differences(section(then, "flags"), section(now, "flags"), path="flags")
    changes += _program(then.get("program"), now.get("program"))
    aside += [each for key in ("started", "command") for each in differences(then.get(key), now.get(key), path=key)]
    return Comparison(changes=changes, aside=aside, unknown=unknown)


def section(passport: Passport, name: str) -> Mapping[str, Any]:
    """A part of a passport; {} where an older one has none, or a damaged one something else.

    Args:
      passport: one session's.
      name: such as "hardware".
    """
    part = passport.get(name)
    return part if isinstance(part, Mapping) else {}


def _code(then: Passport, now: Passport) -> tuple[list[Difference], list[Difference], list[str]]:
    """By the digests of the source files where both have them; else by git."""
    git = [section(passport, "git") for passport in (then, now)]
    source = [section(passport, "source") for passport in (then, now)]
    changes = differences(git[0].get("commit"), git[1].get("commit"), path="code.commit")
    uncommitted = differences(*(_uncommitted(state) for state in git), path="code.uncommitted changes")
    if not all(source):
        return changes + uncommitted, [], ["digests of the source files"]
    files = [section(state, "files") for state in source]
    changed = [Difference(f"code.{name}", a, b) for name, a, b in _paired(*files) if a != b]
    if not changed:
        changed = differences(source[0].get("sha256"), source[1].get("sha256"), path="code.sha256")
    return changes + changed, uncommitted, []


def _uncommitted(git: Mapping[str, Any]) -> str | None:
    """A digest of what is not committed; None for nothing."""
    parts = (git.get("diff") or "", sorted((git.get("untracked") or {}).items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12] if any(parts) else None


def _paired(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, then.get(name, ABSENT), now.get(name, ABSENT)) for name in sorted({*then, *now})]


def _data(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """By content, not by place: the digest decides, and where two are of different things, the number of examples."""
    changes: list[Difference] = []
    unknown: list[str] = []
    parts = ({split: section(data, split) for split in data} for data in (then, now))
    for split, a, b in _paired(*parts):
        if a is ABSENT or b is ABSENT:
            sides = (side if side is ABSENT else side.get("origin") for side in (a, b))
            changes.append(Difference(f"data.{split}", *sides))
            continue
        kinds = [side.get("digest_of", "pixels") for side in (a, b)]
        keys = ["examples", "sha256"] if kinds[0] == kinds[1] else ["examples"]
        found = [d for key in keys for d in differences(a.get(key), b.get(key), path=f"data.{split}.{key}")]
        # Where the content is the same, its place does not matter.
        found += differences(a.get("origin"), b.get("origin"), path=f"data.{split}.origin") if found else []
        changes += found
        if kinds[0] != kinds[1]:
            unknown.append(f"data.{split}: a digest of {kinds[0]} against one of {kinds[1]}")
        elif kinds[0] == "names and sizes":
            unknown.append(f"data.{split}: bytes inside files of equal size (many large files: names and sizes alone)")
    return changes, unknown


def _program(then: Any, now: Any) -> list[Difference]:
    """How many runs were computed together, and how; the other runs' configs are not this run's."""

    def summary(record: Any) -> Any:
        if not isinstance(record, Mapping):
            return "of this run alone"
        runs, among = (len(record.get(key, ())) for key in ("runs", "among"))
        return f"of {runs} runs among {among}, {record.get('mode')} on {record.get('devices')} devices"

    return differences(summary(then), summary(now), path="program")
