"""A classifier as arrays, and back: what stands on disk between two batches."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields

import numpy as np
import torch
from numpy.typing import NDArray

from vitriflow.errors import BadParameter
from vitriflow.kernels.class2d import OnlineClassifier
from vitriflow.kernels.class2d_held import Held
from vitriflow.kernels.class2d_model import ClassSums
from vitriflow.kernels.class2d_prepare import Class2DSettings

__all__ = ["from_arrays", "to_arrays"]

_VERSION = 1
_FIXED = ("pixel_size_A", "particle_diameter_A", "max_resolution_A", "ctf")  # what the sums depend on
_COUNTERS = ("n_seen", "n_used", "n_updates", "n_broken", "n_left_out", "next_id", "next_look")

Arrays = dict[str, NDArray[np.generic]]


def to_arrays(classifier: OnlineClassifier) -> Arrays:
    """Everything that the next update depends on, as arrays for ``numpy.savez``."""
    about = {
        "version": _VERSION,
        "settings": {key: value for key, value in asdict(classifier.settings).items() if key != "device"},
        "box": classifier.prepare.box,
        "counters": {name: getattr(classifier, name) for name in _COUNTERS},
        "moved_to": {str(key): value for key, value in classifier.moved_to.items()},
        "past_counts": {str(key): value for key, value in classifier.past_counts.items()},
    }
    arrays: Arrays = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
    for prefix, part in (("held", classifier.held), ("classes", classifier.classes)):
        for field in fields(part):
            arrays[f"{prefix}.{field.name}"] = getattr(part, field.name).cpu().numpy()
    arrays["signal"] = classifier.signal.cpu().numpy()
    arrays["power"] = classifier.power.cpu().numpy()
    if classifier.prepare.noise is not None:
        arrays["noise"] = classifier.prepare.noise.cpu().numpy()
    return arrays


def from_arrays(settings: Class2DSettings, arrays: Mapping[str, NDArray[np.generic]]) -> OnlineClassifier:
    """The classifier that :func:`to_arrays` took apart; settings that its sums don't depend on may be others.

    Raises
    ------
    BadParameter
        When settings differ that the sums depend on, or the arrays are another version's.
    KeyError
        When an array is missing.
    """
    about = json.loads(bytes(np.asarray(arrays["about"], dtype=np.uint8)))
    if about["version"] != _VERSION:
        raise BadParameter(
            "state of class2d.online",
            f"version {_VERSION}",
            f"version {about['version']}",
            "Restart the node: as a new revision it begins anew.",
        )
    for name in _FIXED:
        before, now = about["settings"][name], getattr(settings, name)
        if before != now and not (isinstance(now, float) and abs(before - now) <= 1e-6 * abs(now)):
            raise BadParameter(
                f"{name} of class2d.online",
                f"{before}, as in the batches before",
                str(now),
                "Restart the node: as a new revision it begins anew with the new value.",
            )
    classifier = OnlineClassifier(settings, int(about["box"]))
    on = settings.device

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(arrays[name])).to(on)

    classifier.held = Held(**{field.name: tensor(f"held.{field.name}") for field in fields(Held)})
    classifier.classes = ClassSums(
        **{field.name: tensor(f"classes.{field.name}") for field in fields(ClassSums)}
    )
    classifier.signal, classifier.power = tensor("signal"), tensor("power")
    if "noise" in arrays:
        classifier.prepare.noise = tensor("noise")
    for name in _COUNTERS:
        setattr(classifier, name, int(about["counters"][name]))
    classifier.moved_to = {int(key): int(value) for key, value in about["moved_to"].items()}
    classifier.past_counts = {int(key): int(value) for key, value in about["past_counts"].items()}
    return classifier
