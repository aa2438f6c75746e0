"""The control groups of this process, which bound what a container may use (Linux).

Linux knows two versions of control groups, and a system may use both; in the first, each kind of bound has
a hierarchy of its own. Groups are nested, and each one bounds those inside it. `root` is where /proc and all
else is found: the tests lay out files like the system's.
"""

import os
import posixpath
import re


def folders_of(controller, root="/"):
    """Yield the folders of the groups that may bound "cpu" or "memory", each before those around it."""
    mounts = text_of(root, "/proc/self/mountinfo").splitlines()
    for group in text_of(root, "/proc/self/cgroup").splitlines():
        for mount in mounts:
            yield from _folders(controller, group, mount)


def text_of(root, *path):
    """What a file says; nothing if it cannot be read."""
    try:
        whole = os.fspath(root) + posixpath.join(*path)
        with open(whole, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _folders(controller, group, mount):
    """The folders of a group and of all around it, if `mount` is of a hierarchy that may bound the resource.

    group: "4:cpu,cpuacct:/a/b" in version 1, "0::/a/b" in version 2.
    mount: "31 23 0:28 /root /mounted/here options ... - type source options".
    """
    group, (place, _, kind) = group.split(":", 2), mount.partition(" - ")
    place, kind = place.split(" "), kind.split(" ")
    if len(group) < 3 or len(place) < 5 or len(kind) < 3:
        return
    _, controllers, path = group
    if controllers == "":
        matches = kind[0] == "cgroup2"
    else:
        named = all(controller in names.split(",") for names in (controllers, kind[2]))
        matches = named and kind[0] == "cgroup"
    if not matches:
        return
    top, mounted = map(_unescaped, place[3:5])
    inside = posixpath.relpath(path or "/", top)
    parts = [] if inside == "." else inside.split("/")
    if ".." in parts or ".." in path.split("/"):
        parts = []  # not below what is mounted: a container that sees its own group alone
    for depth in range(len(parts), -1, -1):
        yield posixpath.join(mounted, *parts[:depth])


def _unescaped(text):
    """A path of mountinfo, where a space is \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
