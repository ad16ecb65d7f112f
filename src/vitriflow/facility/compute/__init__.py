"""Where work is done: this machine, clusters and clouds through Parsl, shared fairly between experiments."""

from vitriflow.facility.compute.batch import BatchJobs, call_resources
from vitriflow.facility.compute.batch_job import MPIRUN_VARIABLE
from vitriflow.facility.compute.bursting import BurstGate, Choice, Site, decide
from vitriflow.facility.compute.examining import check_pools
from vitriflow.facility.compute.fair import ExperimentPool, SharedPool
from vitriflow.facility.compute.parsl_pool import ParslPool
from vitriflow.facility.compute.pools import FacilityPool, is_of_many, local_pool, make_pool
from vitriflow.facility.compute.problems import Problem
from vitriflow.facility.compute.providers import arguments
from vitriflow.facility.compute.shares import FairQueue, Party
from vitriflow.facility.compute.staging import StagedPool, copy_checked

__all__ = [
    "MPIRUN_VARIABLE",
    "BatchJobs",
    "BurstGate",
    "Choice",
    "ExperimentPool",
    "FacilityPool",
    "FairQueue",
    "ParslPool",
    "Party",
    "Problem",
    "SharedPool",
    "Site",
    "StagedPool",
    "arguments",
    "call_resources",
    "check_pools",
    "copy_checked",
    "decide",
    "is_of_many",
    "local_pool",
    "make_pool",
]
