"""Questions that a template asks whoever launches it, and variables that the facility fills in."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vitriflow.errors import BadParameter, BadTemplate
from vitriflow.formats.marked import MarkedText

VARIABLE = re.compile(r"\$\{([a-z]+)\.([A-Za-z0-9_]+)(?:\|([^}]*))?\}")
SCOPES = ("facility", "microscope", "camera", "sample")
Scopes = Mapping[str, Mapping[str, Any]]


class Prompt(BaseModel):
    """One question. Its key is the parameter that the answer sets, or ``node.parameter``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, description="the question, in a few words")
    help: str = Field(default="", description="a sentence that helps to answer")
    unit: str = Field(default="", description="shown behind the answer: A, kV, e/A^2 ...")
    kind: Literal["number", "integer", "text", "choice", "yes_no"] = "number"
    default: Any = Field(
        default=None, description="what is meant when nobody answers; none: it has to be answered"
    )
    optional: bool = Field(default=False, description="may stay unanswered without a default")
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> "Prompt":
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError("choices stand with kind: choice, and nowhere else")
        if (self.least is not None or self.most is not None) and self.kind not in ("number", "integer"):
            raise ValueError("least and most are for numbers")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError("least is above most")
        return self

    def read(self, name: str, answer: Any) -> Any:
        """An answer as the value it stands for.

        Raises
        ------
        BadParameter
            Naming the question and what would be right.
        """
        value = self._typed(answer)
        if value is None:
            raise BadParameter(f"{self.title} ({name})", self.wanted(), repr(answer)[:80], self.help)
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = self.least is not None and value < self.least
            high = self.most is not None and value > self.most
            if low or high:
                raise BadParameter(f"{self.title} ({name})", self.wanted(), f"{value:g}", self.help)
        return value

    def wanted(self) -> str:
        """What an answer has to be, in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        words = {"number": "a number", "integer": "a whole number", "text": "a text", "yes_no": "yes or no"}[
            self.kind
        ]
        bounds = [f"at least {self.least:g}"] if self.least is not None else []
        bounds += [f"at most {self.most:g}"] if self.most is not None else []
        unit = f" in {self.unit}" if self.unit else ""
        return f"{words}{unit}" + (f", {' and '.join(bounds)}" if bounds else "")

    def _typed(self, answer: Any) -> Any:
        """The answer with its type; None when it isn't one."""
        if self.kind in ("text", "choice"):
            text = str(answer)
            return text if self.kind == "text" or text in self.choices else None
        if self.kind == "yes_no":
            words = {"yes": True, "true": True, "no": False, "false": False}
            return words.get(str(answer).strip().lower())
        if isinstance(answer, bool):
            return None
        try:
            number = float(answer)
        except (TypeError, ValueError):
            return None
        if number != number or number in (float("inf"), float("-inf")):
            return None
        if self.kind == "integer":
            return int(number) if number == int(number) else None
        return number


def read_answers(prompts: Mapping[str, Prompt], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a processing, from what was answered; what has no prompt is passed on as it is.

    Raises
    ------
    BadParameter
        For a wrong answer, or one that is missing.
    """
    found = {name: value for name, value in answers.items() if name not in prompts}
    for name, prompt in prompts.items():
        if name in answers and answers[name] is not None:
            found[name] = prompt.read(name, answers[name])
        elif prompt.default is None and not prompt.optional:
            raise BadParameter(
                f"{prompt.title} ({name})", prompt.wanted(), "no answer", f"Give it with --set {name}=VALUE."
            )
    return found


def fill(text: str, marks: MarkedText, scopes: Scopes) -> str:
    """A template's text with its variables filled in; the text itself when it has none.

    ``${sample.symmetry}`` is the value of the sample's parameter, with its type where nothing else stands
    beside it; ``${sample.symmetry|C1}`` says what is meant when there's none. Comments aren't kept.

    Parameters
    ----------
    text, marks
        Of the template.
    scopes
        Values by name, for each of facility, microscope, camera and sample.

    Raises
    ------
    BadTemplate
        When a variable has no value and no default; names the line.
    """
    if not VARIABLE.search(text):
        return text
    filled = _walk(marks.data, (), lambda value, place: _value(value, place, marks, scopes))
    return yaml.safe_dump(filled, sort_keys=False, allow_unicode=True)


def variables(data: Any) -> list[str]:
    """Names of all variables in a template's data, each once."""
    found: dict[str, None] = {}

    def note(value: str, _: Sequence[str | int]) -> Any:
        found.update(dict.fromkeys(f"{m[1]}.{m[2]}" for m in VARIABLE.finditer(value)))
        return value

    _walk(data, (), note)
    return list(found)


def _walk(data: Any, place: tuple[str | int, ...], change: Callable[[str, Sequence[str | int]], Any]) -> Any:
    if isinstance(data, dict):
        return {key: _walk(value, (*place, key), change) for key, value in data.items()}
    if isinstance(data, list):
        return [_walk(value, (*place, number), change) for number, value in enumerate(data)]
    return change(data, place) if isinstance(data, str) else data


def _value(text: str, place: Sequence[str | int], marks: MarkedText, scopes: Scopes) -> Any:
    def one(match: re.Match[str]) -> Any:
        scope, name, default = match[1], match[2], match[3]
        if scope not in SCOPES:
            raise BadTemplate(
                f"{marks.at(place)}: variable '{match[0]}'",
                "one of " + ", ".join(f"{known}.NAME" for known in SCOPES),
                repr(scope),
                "Correct it.",
            )
        value = scopes.get(scope, {}).get(name)
        if value is not None:
            return value
        if default is None:
            known = ", ".join(sorted(scopes.get(scope, {}))) or "nothing"
            raise BadTemplate(
                f"{marks.at(place)}: variable '{match[0]}'",
                f"a value of the {scope} (known: {known}), or a default",
                "none",
                f"Write ${{{scope}.{name}|DEFAULT}}, or fill it in for this {scope}.",
            )
        return yaml.safe_load(default)

    whole = VARIABLE.fullmatch(text)
    if whole is not None:
        return one(whole)
    return VARIABLE.sub(lambda match: str(one(match)), text)
