"""The processors that control groups allow, from files laid out like those of systems and containers."""

import pytest

from xent._quota import cpu_quota

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_OTHER = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
ROOT = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
GROUP, CPU = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"


def v1(folder, quota, period=100_000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


# name: (/proc/self/cgroup, /proc/self/mountinfo, files, what they allow)
LAYOUTS = {
    "version 2": ("0::/a", [ROOT, V2.format(top="/")], {f"{GROUP}/a/cpu.max": "200000 100000\n"}, 2),
    "no bound": ("0::/a", [V2.format(top="/")], {f"{GROUP}/a/cpu.max": "max 100000\n"}, None),
    "a fraction": ("0::/", [V2.format(top="/")], {f"{GROUP}/cpu.max": "50000 100000\n"}, 0.5),
    "a smaller one around it": (
        "0::/a/b/c",
        [V2.format(top="/")],
        {
            f"{GROUP}/a/cpu.max": "150000 100000",
            f"{GROUP}/a/b/cpu.max": "max 100000",
            f"{GROUP}/a/b/c/cpu.max": "400000 100000",
        },
        1.5,
    ),
    "a smaller one beside it": (
        "0::/a",
        [V2.format(top="/")],
        {f"{GROUP}/a/cpu.max": "300000 100000", f"{GROUP}/b/cpu.max": "100000 100000"},
        3,
    ),
    "version 1": (
        "4:cpu,cpuacct:/a\n3:cpuset:/b",
        [V1_OTHER, V1.format(top="/")],
        v1(f"{CPU}/a", 250_000),
        2.5,
    ),
    "version 1, no bound": ("4:cpu,cpuacct:/a", [V1.format(top="/")], v1(f"{CPU}/a", -1), None),
    "version 1, nested": (
        "4:cpu,cpuacct:/a/b",
        [V1.format(top="/")],
        {**v1(f"{CPU}/a", 20_000, 10_000), **v1(f"{CPU}/a/b", -1)},
        2,
    ),
    "version 1, a container that sees its own group alone": (
        "4:cpu,cpuacct:/docker/1f",
        [V1.format(top="/docker/1f")],
        v1(CPU, 300_000),
        3,
    ),
    "a group that is not below what is mounted": (
        "0::/x",
        [V2.format(top="/y")],
        {f"{GROUP}/cpu.max": "100000 50000"},
        2,
    ),
    "a group above that of the namespace": (
        "0::/../x",
        [V2.format(top="/")],
        {f"{GROUP}/cpu.max": "100000 50000"},
        2,
    ),
    "both versions": (
        "4:cpu,cpuacct:/a\n0::/a",
        [V1.format(top="/"), "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"],
        {**v1(f"{CPU}/a", 700_000), f"{GROUP}/unified/a/cgroup.procs": "1"},
        7,
    ),
    "a space in a name": (
        "0::/a b",
        [V2.format(top="/").replace("/sys/fs/cgroup", "/my\\040groups")],
        {"my groups/a b/cpu.max": "100000 100000"},
        1,
    ),
    "no groups": ("", [ROOT], {}, None),
    "files that say nothing": ("0::/a", [V2.format(top="/"), "nonsense"], {f"{GROUP}/a/cpu.max": ""}, None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_quota(name, tmp_path):
    groups, mounts, files, expected = LAYOUTS[name]
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts), **files}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert cpu_quota(str(tmp_path)) == expected


def test_no_such_system(tmp_path):
    assert cpu_quota(str(tmp_path)) is None
