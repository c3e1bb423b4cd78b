"""Free memory, with the limits of containers and of schedulers' jobs."""

from pathlib import Path

import pytest

from lora_bench.training import memory

GIB = 2**30
# version of control groups: folder of the controller, line of the process, names of the files
VERSIONS = {
    "v1": ("memory", "4:memory:/jobs/a", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    "v2": ("", "0::/jobs/a", "memory.max", "memory.current"),
}


@pytest.fixture
def system(tmp_path, monkeypatch) -> Path:
    """A machine with 10 GiB available, and no control groups."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    lines = f"MemTotal: 99999999 kB\nMemAvailable: {10 * GIB // 1024} kB\nHugePages_Total: 0\n"
    (tmp_path / "proc" / "meminfo").write_text(lines)
    return tmp_path


def add_group(system: Path, version: str, name: str, limit: str, used: int, cached: int) -> None:
    mount, line, of_limit, of_use = VERSIONS[version]
    (system / "proc" / "self" / "cgroup").write_text(f"1:cpu:/x\n{line}\n")
    folder = system / "cgroup" / mount / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / of_limit).write_text(f"{limit}\n")
    (folder / of_use).write_text(f"{used}\n")
    stat = f"anon {used - cached}\ninactive_file {cached}\ntotal_inactive_file {cached}\n"
    (folder / "memory.stat").write_text(stat)


def test_without_control_groups_the_machine_decides(system):
    assert memory.free_bytes("cpu") == 10 * GIB


@pytest.mark.parametrize("version", VERSIONS)
def test_the_tightest_limit_decides_and_cache_counts_as_free(system, version):
    add_group(system, version, "jobs/a", str(8 * GIB), used=3 * GIB, cached=GIB)
    assert memory.free_bytes("cpu") == 6 * GIB
    add_group(system, version, "jobs", str(5 * GIB), used=4 * GIB, cached=GIB)  # around it
    assert memory.free_bytes("cpu") == 2 * GIB


@pytest.mark.parametrize("version", VERSIONS)
def test_a_group_without_a_limit_or_out_of_sight_does_not_count(system, version):
    unlimited = {"v1": str(2**63 - 4096), "v2": "max"}[version]
    add_group(system, version, "jobs/a", unlimited, used=3 * GIB, cached=0)
    assert memory.free_bytes("cpu") == 10 * GIB
    add_group(system, version, ".", str(4 * GIB), used=GIB, cached=0)  # a container's own root
    assert memory.free_bytes("cpu") == 3 * GIB


def test_a_system_without_these_files_reports_nothing(system):
    (system / "proc" / "meminfo").unlink()
    assert memory.free_bytes("cpu") is None
