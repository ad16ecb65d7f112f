"""Rules that are shipped. Each can be changed or turned off by its name in [[monitors.rules]].

Limits are wide on purpose: a rule that cries every night isn't read. Where it depends on the sample what's
good, a session is compared with its own first exposures, which never change.
"""

from typing import Any

DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "defocus_far",
        "quantity": "defocus_A",
        "exposures": 20,
        "above": 50000.0,
        "below": 2000.0,
        "message": "The median defocus of the last {{ n }} exposures of {{ session }} is {{ value }} Å. Focus again.",
    },
    {
        "name": "fit_resolution_worse",
        "quantity": "fit_resolution_A",
        "against_start": True,
        "above": 1.6,
        "clear_below": 1.35,
        "message": "The CTF fits of {{ session }} became worse: {{ value }} Å (median of {{ n }}), {{ before }} Å "
        "at the start. Look at ice, drift and focus of the newest micrographs.",
    },
    {
        "name": "fit_resolution_poor",
        "quantity": "fit_resolution_A",
        "above": 10.0,
        "clear_below": 8.0,
        "message": "CTF fits of {{ session }} reach only {{ value }} Å (median of {{ n }}). The sample, the ice or the "
        "microscope isn't good now.",
    },
    {
        "name": "motion_rising",
        "quantity": "total_A",
        "against_start": True,
        "above": 2.0,
        "clear_below": 1.5,
        "message": "Motion of {{ session }} rose: {{ value }} Å (median of {{ n }}), {{ before }} Å at the start. "
        "Check stage, settling time and cooling.",
    },
    {
        "name": "ice_thicker",
        "quantity": "ice_ring",
        "against_start": True,
        "above": 1.5,
        "clear_below": 1.25,
        "message": "The ice ring of {{ session }} grew: {{ value }} (median of {{ n }}), {{ before }} at the start. "
        "Ice is getting thicker or crystalline; try other squares.",
    },
    {
        "name": "intensity_drop",
        "quantity": "mean_intensity",
        "against_start": True,
        "below": 0.6,
        "clear_above": 0.75,
        "severity": "alarm",
        "message": "Images of {{ session }} became darker: {{ value }} counts a pixel and frame (median of {{ n }}), "
        "{{ before }} at the start. Check the beam, the valves and the thickness of the ice.",
    },
    {
        "name": "picks_drop",
        "quantity": "n_picks",
        "against_start": True,
        "below": 0.5,
        "clear_above": 0.7,
        "message": "Fewer particles are found in {{ session }}: {{ value }} (median of {{ n }}), "
        "{{ before }} at the start.",
    },
    {
        "name": "many_set_aside",
        "quantity": "set_aside",
        "statistic": "fraction",
        "above": 0.5,
        "clear_below": 0.3,
        "severity": "alarm",
        "message": "{{ value }} of the last {{ n }} exposures of {{ session }} were set aside. "
        "The reasons stand on its page.",
    },
    {
        "name": "many_quarantined",
        "quantity": "quarantined",
        "statistic": "fraction",
        "above": 0.25,
        "clear_below": 0.15,
        "message": "{{ value }} of the last {{ n }} exposures of {{ session }} "
        "can't be used as they are (quarantined).",
    },
    {
        "name": "many_failed",
        "quantity": "failed",
        "statistic": "fraction",
        "above": 0.1,
        "clear_below": 0.04,
        "severity": "alarm",
        "message": "Processing failed for {{ value }} of the last {{ n }} exposures of {{ session }}. "
        "It's not the data: look at the machines, and at 'vitriflow explain'.",
    },
    {
        "name": "processing_behind",
        "quantity": "waiting_min",
        "statistic": "max",
        "least": 1,
        "above": 45.0,
        "clear_below": 20.0,
        "message": "Processing of {{ session }} is behind: the oldest exposure waits for {{ value }} min. "
        "Are the workers running, and enough?",
    },
    {
        "name": "latency_high",
        "quantity": "latency_s",
        "statistic": "p95",
        "above": 1800.0,
        "clear_below": 900.0,
        "severity": "info",
        "message": "Results of {{ session }} take {{ value }} s (95 % of the last {{ n }}).",
    },
    {
        "name": "load_high",
        "quantity": "load_per_core",
        "minutes": 10.0,
        "least": 6,
        "above": 4.0,
        "clear_below": 2.0,
        "message": "{{ host }} has {{ value }} tasks for each core (median of {{ window }}).",
    },
    {
        "name": "memory_full",
        "quantity": "memory_percent",
        "minutes": 3.0,
        "least": 3,
        "above": 95.0,
        "clear_below": 88.0,
        "severity": "alarm",
        "message": "The memory of {{ host }} is {{ value }} % full (median of {{ window }}). "
        "Use fewer workers, or end what else runs there.",
    },
    {
        "name": "gpu_memory_full",
        "quantity": "gpu_memory_percent",
        "minutes": 3.0,
        "least": 3,
        "above": 98.0,
        "clear_below": 90.0,
        "message": "GPU memory of {{ host }} is {{ value }} % full (median of {{ window }}).",
    },
    {
        "name": "gpu_hot",
        "quantity": "gpu_temperature_C",
        "minutes": 3.0,
        "least": 3,
        "above": 90.0,
        "clear_below": 82.0,
        "message": "A GPU of {{ host }} is at {{ value }} °C (median of {{ window }}). Check its cooling.",
    },
    {
        "name": "network_errors",
        "quantity": "network_errors_per_s",
        "minutes": 5.0,
        "least": 5,
        "above": 5.0,
        "clear_below": 1.0,
        "message": "The network of {{ host }} loses {{ value }} packets a second (median of {{ window }}). "
        "Check cable and switch.",
    },
)
