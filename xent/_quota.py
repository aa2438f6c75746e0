"""How much processor time the control groups of this process allow: the quota of a container.

Linux knows two versions of control groups, and a system may use both: the first has `cpu.cfs_quota_us` and
`cpu.cfs_period_us`, the second `cpu.max`. Groups are nested, and each one bounds those inside it.
"""

import os
import re
from pathlib import PurePosixPath


def cpu_quota(root="/"):
    """Return how many processors the control groups allow, which may be a fraction; None if any number.

    `root` is where /proc and all else is found: the tests lay out files like the system's.
    """
    try:
        groups = _lines(root, "/proc/self/cgroup")
        mounts = _lines(root, "/proc/self/mountinfo")
    except OSError:  # no Linux, or no /proc
        return None
    quotas = [
        quota
        for group in groups
        for mount in mounts
        for folder in _folders(group, mount)
        if (quota := _quota(root, folder)) is not None
    ]
    return min(quotas, default=None)


def _lines(root, path):
    with open(root + path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


def _folders(group, mount):
    """The folders of a group and of all around it, if `mount` is of a hierarchy that may bound processors.

    group: "4:cpu,cpuacct:/a/b" in version 1, "0::/a/b" in version 2.
    mount: "31 23 0:28 /root /mounted/here options ... - type source options".
    """
    _, controllers, path = group.split(":", 2)
    place, _, kind = mount.partition(" - ")
    place, kind = place.split(" "), kind.split(" ")
    if len(place) < 5 or len(kind) < 3:
        return []
    if controllers == "":
        matches = kind[0] == "cgroup2"
    else:
        matches = "cpu" in controllers.split(",") and kind[0] == "cgroup" and "cpu" in kind[2].split(",")
    if not matches:
        return []
    top, mounted = (PurePosixPath(_unescaped(text)) for text in place[3:5])
    try:
        inside = PurePosixPath(path).relative_to(top)
    except ValueError:  # the group is not below what is mounted here: a container that sees its own alone
        inside = PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    return [mounted.joinpath(*inside.parts[:n]) for n in range(len(inside.parts) + 1)]


def _unescaped(text):
    """A path of mountinfo, where a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _quota(root, folder):
    """The bound of one group alone, or None."""
    for read in (_quota_of_version_2, _quota_of_version_1):
        try:
            quota, period = read(root, folder)
            if quota > 0 and period > 0:  # -1 is no bound
                return quota / period
        except (OSError, ValueError, IndexError):  # no such file, "max", or nothing
            continue
    return None


def _quota_of_version_2(root, folder):
    quota, period = _lines(root, os.fspath(folder / "cpu.max"))[0].split()
    return int(quota), int(period)


def _quota_of_version_1(root, folder):
    names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
    return tuple(int(_lines(root, os.fspath(folder / name))[0]) for name in names)
