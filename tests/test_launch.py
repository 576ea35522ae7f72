"""Who a process is among the tasks of srun and mpirun, and who it is not."""

import pytest

from unimo_ds.launch import adopt_launcher, first_host, unused_tasks

BATCH = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
    "SLURM_NTASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_NODEID": "0",
}
STEP = BATCH | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-login1-77@1",
}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "5",
    "MV2_COMM_WORLD_SIZE": "6",
    "MV2_COMM_WORLD_LOCAL_RANK": "2",
    "MV2_COMM_WORLD_LOCAL_SIZE": "3",
    "PBS_JOBID": "12.head",
    "MASTER_ADDR": "10.0.0.7",
}


def adopted(environ):
    environ = dict(environ)
    assert adopt_launcher(environ) == int(environ.get("WORLD_SIZE", "1"))
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    return tuple(environ.get(name) for name in names)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (STEP, ("6", "2", "8", "4", "gpu03")),
        (STEP | {"CUDA_VISIBLE_DEVICES": "5"}, ("6", "0", "8", "4", "gpu03")),
        (STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ("6", "2", "8", "4", "gpu03")),
        (STEP | {"MASTER_ADDR": "ib-gpu03"}, ("6", "2", "8", "4", "ib-gpu03")),
        # `srun --mpi=pmi2` sets these too.
        (STEP | {"PMI_RANK": "6", "PMI_SIZE": "8"}, ("6", "2", "8", "4", "gpu03")),
        (OPEN_MPI | {"MASTER_ADDR": "n1"}, ("3", "1", "4", "2", "n1")),
        # Inside a Slurm job: srun started mpirun's daemons, one of which started this task.
        (
            OPEN_MPI
            | STEP
            | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "gpu04"},
            ("3", "1", "4", "2", "gpu03"),
        ),
        (HYDRA, ("1", "1", "2", "2", "127.0.0.1")),
        (MVAPICH, ("5", "2", "6", "3", "10.0.0.7")),
    ],
)
def test_tasks_of_a_launcher_are_ranks(environ, place):
    assert adopted(environ) == place


@pytest.mark.parametrize(
    "environ",
    [
        BATCH | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script
        BATCH,  # a salloc shell
        BATCH | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # salloc's interactive step
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        {},
    ],
)
def test_who_is_no_task_of_several_is_alone(environ):
    assert adopted(environ) == (None,) * 5


def test_tasks_that_are_left_unused_are_said():
    assert "allocated 8 tasks" in unused_tasks(BATCH | {"SLURM_PROCID": "0"})
    assert not unused_tasks(BATCH | {"SLURM_STEP_NUM_TASKS": "1"})
    assert not unused_tasks(BATCH | {"RANK": "0"})
    assert not unused_tasks({})


@pytest.mark.parametrize("slurm", [BATCH | {"SLURM_PROCID": "0"}, STEP, OPEN_MPI])
def test_a_launchers_own_rank_wins(slurm):
    """deepspeed in a batch script, torchrun in every task of a step."""
    own = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}
    environ = slurm | own | {"MASTER_PORT": "29500"}
    before = dict(environ)
    assert adopt_launcher(environ) == 2
    assert environ == before


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (OPEN_MPI, "set MASTER_ADDR to the host of rank 0"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "MPI_LOCALRANKID does not say"),
        ({"PMI_RANK": "1"}, "PMI_RANK=1 says that this is one of several tasks"),
        ({"PMIX_RANK": "3"}, "PMIX_RANK=3 says"),
        (BATCH | {"SLURM_PROCID": "1"}, "SLURM_PROCID=1 says"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 announces other ranks but RANK is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"),
        (STEP | {"WORLD_SIZE": "4"}, "WORLD_SIZE=4 but srun started SLURM_STEP_NUM_TASKS=8"),
        (STEP | {"SLURM_PROCID": "9"}, "SLURM_PROCID=9 is not below SLURM_STEP_NUM_TASKS=8"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "eight"}, "'eight' is not a number"),
    ],
)
def test_tasks_that_cannot_be_placed_are_refused(environ, message):
    with pytest.raises(ValueError, match=message):
        adopt_launcher(dict(environ))


def test_all_tasks_of_a_step_meet_at_one_port_and_other_steps_elsewhere():
    def port(**changes):
        environ = STEP | changes
        adopt_launcher(environ)
        return int(environ["MASTER_PORT"])

    assert port() == port(SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0")
    assert len({port(), port(SLURM_STEP_ID="1"), port(SLURM_JOB_ID="4712")}) == 3
    assert 15_000 <= port() < 25_000
    assert port(MASTER_PORT="6006") == 6006


def test_hosts_from_the_files_of_batch_systems(tmp_path):
    (tmp_path / "nodes").write_text("c17\nc17\nc18\n")
    environ = OPEN_MPI | {"PBS_NODEFILE": str(tmp_path / "nodes")}
    adopt_launcher(environ)
    assert environ["MASTER_ADDR"] == "c17"


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node[01-03,07]", "node01"),
        ("node[07,09-12]", "node07"),
        ("n1,n[3-4]", "n1"),
        ("r[1-2]c[05-08]-ib,x", "r1c05-ib"),
        ("gpu-a.example.org", "gpu-a.example.org"),
        ("[a-b", ""),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(hosts, first):
    assert first_host(hosts) == first
