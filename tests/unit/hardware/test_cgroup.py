"""Control groups of both versions, nested, side by side and broken."""

from __future__ import annotations

import pytest

from tasks.hardware.cgroup import Cgroup, MemoryLevel

V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
CPU = "/sys/fs/cgroup/cpu,cpuacct"
MEMORY = "/sys/fs/cgroup/memory"


def cgroup(mountinfo: str, groups: str, **files: str) -> Cgroup:
    known = {"/proc/self/mountinfo": mountinfo, "/proc/self/cgroup": groups, **files}
    return Cgroup(lambda path: known.get(path, ""))


def test_no_groups_know_nothing() -> None:
    """Without control groups, as on macOS, there are no limits and no counters."""
    none = cgroup("", "")
    assert (none.tightest_memory(), none.cpu_limit(), none.cpu_seconds()) == (None, None, None)


def test_version_2_takes_the_tightest_of_nested_limits() -> None:
    """A limit of an outer group counts where it is tighter than the inner one's."""
    group = cgroup(
        V2,
        "0::/kubepods/pod1/container\n",
        **{
            "/sys/fs/cgroup/kubepods/pod1/container/memory.max": "max\n",
            "/sys/fs/cgroup/kubepods/pod1/container/cpu.max": "300000 100000\n",
            "/sys/fs/cgroup/kubepods/pod1/container/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
            "/sys/fs/cgroup/kubepods/pod1/memory.max": "3000\n",
            "/sys/fs/cgroup/kubepods/pod1/memory.current": "900\n",
            "/sys/fs/cgroup/kubepods/pod1/memory.stat": "anon 100\ninactive_file 400\n",
            "/sys/fs/cgroup/kubepods/memory.max": "8000\n",
            "/sys/fs/cgroup/kubepods/cpu.max": "200000 100000\n",
        },
    )
    assert group.tightest_memory() == MemoryLevel(limit_bytes=3000, used_bytes=500)
    assert group.cpu_limit() == 2.0
    assert group.cpu_seconds() == 1.5


def test_version_1_inside_a_container() -> None:
    """A container that sees the host's path of its group reads the limits where its mount begins."""
    group = cgroup(
        V1.format(root="/docker/abc"),
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
        **{
            f"{MEMORY}/memory.limit_in_bytes": "2147483648\n",
            f"{MEMORY}/memory.usage_in_bytes": "1000\n",
            f"{MEMORY}/memory.stat": "inactive_file 1\ntotal_inactive_file 600\n",
            f"{CPU}/cpu.cfs_quota_us": "50000\n",
            f"{CPU}/cpu.cfs_period_us": "100000\n",
            f"{CPU}/cpuacct.usage": "2500000000\n",
        },
    )
    assert group.tightest_memory() == MemoryLevel(2**31, 400)
    assert group.cpu_limit() == 0.5
    assert group.cpu_seconds() == 2.5


def test_version_1_on_the_host_walks_up() -> None:
    """On a host the limit may stand in a parent's folder; "no limit" is a huge number and counts as none."""
    group = cgroup(
        V1.format(root="/"),
        "4:memory:/slice/job\n2:cpu,cpuacct:/slice/job\n",
        **{
            f"{MEMORY}/slice/job/memory.limit_in_bytes": "9223372036854771712\n",
            f"{MEMORY}/slice/memory.limit_in_bytes": "5000\n",
            f"{MEMORY}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{CPU}/slice/job/cpu.cfs_quota_us": "-1\n",
            f"{CPU}/slice/job/cpu.cfs_period_us": "100000\n",
        },
    )
    assert group.tightest_memory() == MemoryLevel(5000, 0)
    assert group.cpu_limit() is None


def test_versions_side_by_side() -> None:
    """Where both are mounted, version 1 has the counters and version 2's root must not stand in for them."""
    group = cgroup(
        "31 23 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" + V1.format(root="/"),
        "2:cpu,cpuacct:/job\n0::/\n",
        **{
            "/sys/fs/cgroup/unified/cpu.stat": "usage_usec 99000000\n",
            f"{CPU}/job/cpuacct.usage": "1000000000\n",
        },
    )
    assert group.cpu_seconds() == 1.0


@pytest.mark.parametrize("path", ["/docker/abcdef", "/../other", "/elsewhere"])
def test_group_outside_the_mount_reads_the_mount(path: str) -> None:
    """A group that the mount does not show, also one whose name merely begins alike, is read where the mount begins."""
    group = cgroup(
        "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        f"0::{path}\n",
        **{"/sys/fs/cgroup/memory.max": "77\n"},
    )
    level = group.tightest_memory()
    assert level is not None
    assert level.limit_bytes == 77


@pytest.mark.parametrize("text", ["garbage", "a b c - d", "- - -", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n"])
def test_unreadable_tables_are_no_groups(text: str) -> None:
    """Lines of another form are passed over."""
    assert cgroup(text, "garbage\n0::/\n").tightest_memory() is None


def test_garbage_in_the_files_is_no_limit() -> None:
    """Files with something else than numbers limit nothing."""
    group = cgroup(
        V2,
        "0::/\n",
        **{
            "/sys/fs/cgroup/memory.max": "lots\n",
            "/sys/fs/cgroup/cpu.max": "100 0\n",
            "/sys/fs/cgroup/cpu.stat": "nr_periods 0\n",
        },
    )
    assert (group.tightest_memory(), group.cpu_limit(), group.cpu_seconds()) == (None, None, None)
