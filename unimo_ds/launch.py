"""Which rank a process is: the variables of srun and mpirun as those of deepspeed and torchrun.

PyTorch and DeepSpeed read RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Slurm and the
MPI launchers say the same in variables of their own; a process that reads none of them takes itself
for the only one, and N of them train N times into one folder.
"""

import re
import zlib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
FIRST_PORT, NUM_PORTS = 15_000, 10_000
"""Below the ports that systems give to outgoing connections (Linux: from 32768)."""


class Tasks(NamedTuple):
    """The variables in which a launcher tells a task its place."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str  # empty: `_srun_local_size` knows
    host_lists: tuple[str, ...]  # of Slurm's form; the first that is set counts
    job: tuple[str, ...]  # what tells jobs, and steps of a job, that share a node apart


# mpirun starts its daemons with srun, on all nodes but the first: what Slurm says of its step there
# is of the daemons, so mpirun's tasks read what is said of the job.
_JOB_HOSTS = ("SLURM_JOB_NODELIST",)
_JOB = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "PMIX_NAMESPACE")
LAUNCHERS = (
    Tasks(
        "mpirun (Open MPI)",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        _JOB_HOSTS,
        _JOB,
    ),
    Tasks(
        "mpirun (MVAPICH)",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
        _JOB_HOSTS,
        _JOB,
    ),
    Tasks(
        "mpirun (MPICH, Intel MPI)",
        "PMI_RANK",
        "PMI_SIZE",
        "MPI_LOCALRANKID",
        "MPI_LOCALNRANKS",
        _JOB_HOSTS,
        _JOB,
    ),
    Tasks(
        "srun",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",  # a batch script or salloc shell has SLURM_NTASKS alone
        "SLURM_LOCALID",
        "",
        ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
        ("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
)
_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_HOST_FILES = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "PE_HOSTFILE")


def adopt_launcher(environ: MutableMapping[str, str]) -> int:
    """Sets RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, WORLD_SIZE and MASTER_* where srun or mpirun started
    this process as one of several tasks.

    A RANK that is there already wins: deepspeed and torchrun set it, also inside a Slurm job. So do
    MASTER_ADDR and MASTER_PORT.

    Returns:
        Ranks of the training, 1 for a process that is alone.

    Raises:
        ValueError: several tasks are announced, but not which of them this is or where they meet.
    """
    if "RANK" in environ:
        return _check_complete(environ)
    several = [t for t in LAUNCHERS if _number(environ, t.size, 1) > 1 and t.rank in environ]
    if not several:
        _refuse_lost_tasks(environ)
        return 1
    # `srun --mpi=pmi2` sets PMI_RANK and PMI_SIZE too, but no local rank of its own.
    tasks = next((t for t in several if t.local_rank in environ), several[0])
    _check_world_size(environ, tasks)
    environ.update(_place(environ, tasks))
    return int(environ["WORLD_SIZE"])


def unused_tasks(environ: Mapping[str, str]) -> str:
    """Says what to do where Slurm gave a batch script or shell several tasks and this process is
    alone; empty elsewhere."""
    count = _number(environ, "SLURM_NTASKS", 1)
    if count <= 1 or "SLURM_STEP_NUM_TASKS" in environ or "RANK" in environ:
        return ""
    return (
        f"Slurm allocated {count} tasks, this process is one rank that trains alone: put `srun` "
        "before the command to use them"
    )


def first_host(host_list: str) -> str:
    """The first host of a Slurm list: ``gpu[03-05,09],login1`` -> ``gpu03``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", host_list)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group()) if first else ""


def _check_complete(environ: Mapping[str, str]) -> int:
    """Refuses a RANK without the rest."""
    missing = [n for n in ("WORLD_SIZE", "LOCAL_RANK", *_MASTER) if n not in environ]
    if missing:
        raise ValueError(
            f"RANK={environ['RANK']} is set but {', '.join(missing)} not: start with deepspeed, "
            "torchrun, srun or mpirun, or set all of them"
        )
    rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}: set both anew")
    return world_size


def _check_world_size(environ: Mapping[str, str], tasks: Tasks) -> None:
    if "WORLD_SIZE" in environ and environ["WORLD_SIZE"] != environ[tasks.size]:
        raise ValueError(
            f"WORLD_SIZE={environ['WORLD_SIZE']} but {tasks.launcher} started "
            f"{tasks.size}={environ[tasks.size]} tasks: unset WORLD_SIZE or start as many tasks"
        )


def _place(environ: Mapping[str, str], tasks: Tasks) -> dict[str, str]:
    rank, size = _number(environ, tasks.rank), _number(environ, tasks.size)
    if not 0 <= rank < size:
        raise ValueError(
            f"{tasks.rank}={rank} is not below {tasks.size}={size}: this shell has inherited "
            "variables of a launcher; unset them or start a new shell"
        )
    local_size = _local_size(environ, tasks, size)
    place = {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(_local_rank(environ, tasks, rank, local_size == size)),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or _master(environ, tasks, local_size == size),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(_port(environ, tasks)),
    }
    return place | ({"LOCAL_WORLD_SIZE": str(local_size)} if local_size else {})


def _local_rank(environ: Mapping[str, str], tasks: Tasks, rank: int, one_node: bool) -> int:
    """Index of this task's GPU among those that it sees: 0 where it sees its own alone."""
    if len([gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]) == 1:
        return 0
    if tasks.local_rank in environ:
        return _number(environ, tasks.local_rank)
    if one_node:
        return rank
    raise ValueError(
        f"{tasks.launcher} started {tasks.size}={environ[tasks.size]} tasks but {tasks.local_rank} "
        "does not say which of its node this is: set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and "
        "MASTER_PORT, or show each task one GPU with CUDA_VISIBLE_DEVICES"
    )


def _local_size(environ: Mapping[str, str], tasks: Tasks, size: int) -> int:
    """Tasks on this node; 0 if nothing tells."""
    if tasks.local_size:
        return _number(environ, tasks.local_size, 0)
    if environ.get("SLURM_STEP_NUM_NODES") == "1":
        return size
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    counts = [int(count) for count, nodes in groups for _ in range(int(nodes or 1))]
    node = _number(environ, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 0


def _master(environ: Mapping[str, str], tasks: Tasks, one_node: bool) -> str:
    """The host of rank 0: the first of the job, as launchers fill hosts in their order."""
    if one_node:
        return LOOPBACK
    for name in tasks.host_lists:
        if host := first_host(environ.get(name, "")):
            return host
    for name in _HOST_FILES:
        path = Path(environ.get(name, ""))
        if path.is_file() and (words := path.read_text(encoding="utf-8").split()):
            return words[0]
    raise ValueError(
        f"{tasks.launcher} started {tasks.size}={environ[tasks.size]} tasks on several hosts, and "
        "no list of hosts says which of them is the first: set MASTER_ADDR to the host of rank 0, "
        "for all tasks (mpirun: -x MASTER_ADDR=HOST or -genv MASTER_ADDR HOST)"
    )


def _port(environ: Mapping[str, str], tasks: Tasks) -> int:
    """The same for all tasks of a job and another for other jobs, as far as 10,000 ports go."""
    job = ".".join(environ[name] for name in tasks.job if name in environ)
    return FIRST_PORT + zlib.crc32(job.encode()) % NUM_PORTS


def _refuse_lost_tasks(environ: Mapping[str, str]) -> None:
    """Refuses signs of other tasks that no launcher above explains."""
    if _number(environ, "WORLD_SIZE", 1) > 1:
        raise ValueError(
            f"WORLD_SIZE={environ['WORLD_SIZE']} announces other ranks but RANK is not set: start "
            "with deepspeed, torchrun, srun or mpirun, or unset WORLD_SIZE"
        )
    for name in (*(tasks.rank for tasks in LAUNCHERS), "PMIX_RANK"):
        if _number(environ, name, 0) > 0:
            raise ValueError(
                f"{name}={environ[name]} says that this is one of several tasks, but nothing says "
                "of how many: start with deepspeed, torchrun or `srun`, or set RANK, LOCAL_RANK, "
                "WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            )


def _number(environ: Mapping[str, str], name: str, absent: int = -1) -> int:
    text = environ.get(name, str(absent))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number: unset it or set it right") from None
