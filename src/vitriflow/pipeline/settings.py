"""How a coordinator goes about its work."""

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Times and limits of a coordinator; the defaults are for one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(
        default=1.0, gt=0, description="how often the catalog is asked for new exposures (s)"
    )
    sweep_s: float = Field(
        default=30.0, gt=0, description="how often all exposures are compared with what was taken in (s)"
    )
    lease_s: float = Field(
        default=30.0, gt=0, description="for how long the processing is held unrenewed (s)"
    )
    oldest_share: int = Field(
        default=4, ge=0, description="every so many items the oldest goes first; 0 never"
    )
    max_attempts: int = Field(default=3, ge=1, description="tries of a task that another try may help")
    backoff_s: float = Field(
        default=2.0, ge=0, description="wait before the second try; it grows fourfold (s)"
    )
    longest_backoff_s: float = Field(default=300.0, ge=0, description="longest wait between tries (s)")
    slots: int = Field(default=2, ge=1, description="calls at once, when the executor doesn't say")
    threads: int = Field(default=1, ge=1, description="CPU threads of a call, when the executor doesn't say")
    ahead_s: float = Field(default=0.3, ge=0, description="how much work waits in the executor (s)")
    most_ahead: int = Field(
        default=64, ge=0, description="calls that wait in the executor for each slot, at most"
    )
    intake_batch: int = Field(default=500, ge=1, description="exposures that come in with one transaction")
    hold_probe_s: float = Field(
        default=10.0, gt=0, description="how often a full disk or a missing folder is tried again (s)"
    )
    min_free_bytes: int = Field(
        default=256 * 1024**2, ge=0, description="room on the results' disk below which work waits"
    )
    stop_grace_s: float = Field(
        default=5.0, ge=0, description="how long calls may end by themselves on stop (s)"
    )
