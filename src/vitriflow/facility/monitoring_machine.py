"""How busy this machine is: CPU, memory, network, and its GPUs where there are any."""

import os
import shutil
import subprocess
import time
from typing import Any

import psutil

_GPU_EVERY_S = 15.0
_GPU_REST_S = 300.0  # a driver that hangs isn't asked again for so long
_GPU_LIMIT_S = 2.0
_GPU_ASKED = ("utilization.gpu", "memory.used", "memory.total", "temperature.gpu")


class MachineLook:
    """Measures this machine at each call; rates are since the call before."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call only begins to count
        self._network = psutil.net_io_counters()
        self._at = time.monotonic()
        self._gpus: list[dict[str, Any]] = []
        self._next_gpu = 0.0
        self._program = shutil.which("nvidia-smi")

    def values(self) -> dict[str, Any]:
        """Percentages, load for each core, MB/s and lost packets a second, and ``gpus``, one entry each."""
        cores = os.cpu_count() or 1
        return {
            "cpu_percent": psutil.cpu_percent(),
            "load_per_core": round(os.getloadavg()[0] / cores, 3),
            "memory_percent": psutil.virtual_memory().percent,
            "swap_percent": psutil.swap_memory().percent,
            **self._traffic(),
            "gpus": self._look_at_gpus(),
        }

    def _traffic(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._at, 1e-3)
        before, current = self._network, psutil.net_io_counters()
        self._network, self._at = current, time.monotonic()

        def lost(count: Any) -> int:
            return int(count.errin + count.errout + count.dropin + count.dropout)

        moved = current.bytes_sent + current.bytes_recv - before.bytes_sent - before.bytes_recv
        return {
            "network_MB_per_s": round(max(moved, 0) / 1e6 / seconds, 3),
            "network_errors_per_s": round(max(lost(current) - lost(before), 0) / seconds, 3),
        }

    def _look_at_gpus(self) -> list[dict[str, Any]]:
        if self._program is None or time.monotonic() < self._next_gpu:
            return self._gpus
        self._next_gpu = time.monotonic() + _GPU_EVERY_S
        command = [self._program, f"--query-gpu={','.join(_GPU_ASKED)}", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_LIMIT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            self._gpus, self._next_gpu = [], time.monotonic() + _GPU_REST_S
        else:
            self._gpus = read_gpus(answer.stdout)
        return self._gpus


def read_gpus(text: str) -> list[dict[str, Any]]:
    """GPUs from nvidia-smi's table, a line each; what it doesn't know of one is left out."""
    found = []
    for number, line in enumerate(text.splitlines()):
        values = [_number(part) for part in line.split(",")]
        if len(values) != len(_GPU_ASKED):
            continue
        busy, used, total, temperature = values
        full = None if used is None or not total else round(100 * used / total, 1)
        gpu = {"gpu_percent": busy, "gpu_memory_percent": full, "gpu_temperature_C": temperature}
        found.append({"number": number, **{name: value for name, value in gpu.items() if value is not None}})
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
