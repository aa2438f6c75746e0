"""How much processor time the control groups of this process allow: the quota of a container."""

from ._groups import folders_of, text_of

# What the second version of control groups says in one file, and the first in two: quota and period.
FILES = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def cpu_quota(root="/"):
    """Return how many processors the control groups allow, which may be a fraction; None if any number."""
    quotas = (_quota(root, folder, files) for folder in folders_of("cpu", root) for files in FILES)
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(root, folder, files):
    """The bound of one group alone, or None."""
    try:
        quota, period = (int(word) for name in files for word in text_of(root, folder, name).split())
    except ValueError:  # no such file, "max", or nothing
        return None
    return quota / period if quota > 0 and period > 0 else None  # -1 is no bound
