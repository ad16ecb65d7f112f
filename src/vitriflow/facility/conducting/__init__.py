"""What a workflow engine (Airflow) asks of vitriflow: DAGs to make, lots to run, nodes to start, disks to free."""

from vitriflow.facility.conducting.asks import Asking, Standing, ask, standing
from vitriflow.facility.conducting.describe import describe
from vitriflow.facility.conducting.lots import Offer, acknowledge, offer, peek
from vitriflow.facility.conducting.rounds import free, prepare, revise, round_of

__all__ = [
    "Asking",
    "Offer",
    "Standing",
    "acknowledge",
    "ask",
    "describe",
    "free",
    "offer",
    "peek",
    "prepare",
    "revise",
    "round_of",
    "standing",
]
