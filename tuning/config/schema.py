"""Everything in a search-space file that is not drawn: frozen, strict, hashable values with sensible limits.

The sections are pydantic models (strict, no unknown keys); :class:`SearchSpec` is the whole file. What lies under
``search`` is only carried here, as canonical JSON: :mod:`tuning.space` gives it meaning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

FORMAT = 1
DEFAULT_TRIALS = 24
ONE, PACKED = "one", "auto"  # the words of per_trial.gpu: a whole GPU, or a share of one that is measured
_NAME = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$")  # no leading dot: it names a folder


class Section(BaseModel):
    """Base of all sections: a bool is no number, a word is no number, and no key is ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _fault(message: str, *at: str) -> PydanticCustomError:
    """An error of ours, placed at the key ``at`` below the section that raises it."""
    return PydanticCustomError("skeltune", "{text}", {"text": message, "at": at})


def _auto_or(lowest: float, whole: bool, words: tuple[str, ...] = ("auto",)) -> Callable[[Any], Any]:
    kind = "a whole number" if whole else "a number"
    bound = f"of at least {lowest:g}"

    def check(value: Any) -> Any:
        right_type = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if (isinstance(value, str) and value in words) or (right_type and value >= lowest):
            return value
        raise _fault(f"must be {', '.join(words)} or {kind} {bound}, got {value!r}")

    return check


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
AutoCount = Annotated[int | str, BeforeValidator(_auto_or(1, whole=True))]
AutoMinutes = Annotated[float | str, BeforeValidator(_auto_or(0.01, whole=False))]
GpuAmount = Annotated[float | str, BeforeValidator(_auto_or(0, whole=False, words=(ONE, PACKED)))]
Subjects = Annotated[tuple[int, ...], Field(min_length=1)]


class SplitRule(Section):
    """A split by hand: exactly one of the lists; the other subjects, cameras or setups are the other side."""

    test_subjects: Subjects | None = None
    train_subjects: Subjects | None = None
    test_cameras: Subjects | None = None
    train_cameras: Subjects | None = None
    test_setups: Subjects | None = None
    train_setups: Subjects | None = None

    @model_validator(mode="after")
    def _one(self) -> SplitRule:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise _fault(f"a split takes exactly one of {', '.join(type(self).model_fields)}")
        return self


class HoldOut(Section):
    """On which part of the training side a search validates: exactly one of these."""

    held_out_subjects: Subjects | None = None
    held_out_cameras: Subjects | None = None
    held_out_setups: Subjects | None = None
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] | None = None

    @model_validator(mode="after")
    def _one(self) -> HoldOut:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise _fault(f"validate_on takes auto, cv or exactly one of {', '.join(type(self).model_fields)}")
        return self


def _one_or_more(value: Any) -> Any:
    """A single name stands for a list of one: ``preprocess: crossclr``."""
    return (value,) if isinstance(value, str) else value


def _split(value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Mapping):
        return SplitRule.model_validate(dict(value))
    raise _fault(f"must be the name of a split (xsub, xview, ...) or {{test_subjects: [...]}}, got {value!r}")


def _validate_on(value: Any) -> Any:
    if value in ("auto", "cv"):
        return value
    if isinstance(value, Mapping):
        return HoldOut.model_validate(dict(value))
    raise _fault(f"must be auto, cv, {{held_out_subjects: [...]}} or the like, got {value!r}")


class DataSpec(Section):
    """Which clips, and who is kept for what. ``set``: "synthetic" or a path to a skeltune dataset folder."""

    set: str = Field(min_length=1)
    split: Annotated[str | SplitRule, BeforeValidator(_split)] = "xsub"
    validate_on: Annotated[str | HoldOut, BeforeValidator(_validate_on)] = "auto"
    preprocess: Annotated[tuple[str, ...] | None, BeforeValidator(_one_or_more)] = (
        None  # None: the default steps of methods.data.preprocess
    )
    frames: Annotated[int, Field(ge=4)] | None = None  # None: the method's recipe


class ProbeSpec(Section):
    """How a rung's features are judged."""

    kind: Literal["linear", "knn"] = "linear"
    metric: Literal["top1"] = "top1"
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    l2: Positive = 1e-3
    sgd_lr: Positive = 3.0
    sgd_epochs: Count = 100
    sgd_batch: Count = 128
    knn_k: Count = 20
    knn_temperature: Positive = 0.1
    settle: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"  # of the frozen encoder's pass
    subset: Annotated[int, Field(ge=0)] = 0  # training clips that rungs below the top fit on; 0: all

    @model_validator(mode="after")
    def _settled(self) -> ProbeSpec:
        if self.precision == "bf16" and not self.settle:
            raise _fault("bf16 needs `settle: true`: unsettled, clips can differ by less than bf16 keeps", "precision")
        return self

    def told(self) -> dict[str, Any]:
        """What a space's hash knows of it: a word that came later counts only where it changes something."""
        told = self.model_dump()
        for name in ("precision", "subset"):
            if told[name] == type(self).model_fields[name].default:
                del told[name]
        return told


class AshaSpec(Section):
    """The ladder of rungs, in epochs of the full run, and who goes up it."""

    min: Count
    eta: Annotated[int, Field(ge=2)] = 3
    rule: Literal["stop", "promote"] = "promote"  # `stop` where a checkpoint costs more than the epochs it saves
    ladder: Literal["per_method", "shared"] = "per_method"
    brackets: Count = 1
    grow: bool = False
    repeats: Annotated[int, Field(ge=0)] = 5

    @model_validator(mode="after")
    def _together(self) -> AshaSpec:
        if self.grow and self.rule != "promote":
            raise _fault("a growing ladder lets trials go on later: it needs `rule: promote`", "grow")
        return self


class ScheduleSpec(Section):
    """How long a full run is, and where it is judged on the way. Without ``asha.min`` the first rung is max // 9."""

    unit: Literal["epoch"] = "epoch"
    max: Count = 27
    asha: AshaSpec

    @model_validator(mode="before")
    @classmethod
    def _first_rung(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        top, asha = given.get("max", 27), given.get("asha", {})
        if isinstance(top, int) and isinstance(asha, Mapping) and "min" not in asha:
            asha = {**asha, "min": max(1, top // 9)}
        return {**given, "asha": asha}

    @model_validator(mode="after")
    def _order(self) -> ScheduleSpec:
        if self.asha.min > self.max:
            raise _fault(f"'asha.min' ({self.asha.min}) is above 'max' ({self.max})", "asha", "min")
        return self

    def rungs(self) -> tuple[int, ...]:
        """The epochs at which a run is probed: min * eta^k below max, then max. Integers throughout.

        A product within a factor sqrt(eta) of the top is left out, as two probes so near decide nothing.
        """
        top, eta = self.max, self.asha.eta
        found = [self.asha.min] if self.asha.min < top else []
        rung = self.asha.min * eta
        while rung < top and rung * rung * eta <= top * top:
            found.append(rung)
            rung *= eta
        return (*found, top)


class SamplerSpec(Section):
    """Who proposes the next draws: the first ``startup_trials`` and a share of the others are drawn from the space."""

    name: Literal["portfolio", "tpe", "rank_gp", "random", "gp", "cmaes"] = "portfolio"
    startup_trials: Annotated[int, Field(ge=0)] = 10
    random_share: Share = 0.2


class PerTrial(Section):
    """What one trial takes of a machine. ``gpu``: ``one`` if there is one; ``auto``: as a calibration finds.

    ``graphs``: on a GPU, replay steps as CUDA graphs wherever a method can; no number changes, and without one nothing.
    """

    gpu: GpuAmount = ONE
    cpu: Positive = 1.0
    graphs: bool = False


class BudgetSpec(Section):
    """When a search ends: at the first limit reached."""

    trials: Count | None = None
    epochs: Count | None = None
    gpu_hours: Positive | None = None
    minutes: Positive | None = None
    money: Positive | None = None
    price: Positive | None = None  # of one GPU-hour, in the currency of `money`
    in_flight: Literal["finish", "stop"] = "finish"
    on_end: Literal["finish", "stop"] = "finish"
    parallel: AutoCount = "auto"
    per_trial: PerTrial = PerTrial()
    retries: Annotated[int, Field(ge=0)] = 2
    hung_after: AutoMinutes = "auto"  # minutes without a word of a trial after which its worker is killed

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, given: Any) -> Any:
        limits = ("trials", "epochs", "gpu_hours", "minutes", "money")
        if not isinstance(given, Mapping):
            return given
        if not any(name in given for name in limits):
            return {**given, "trials": DEFAULT_TRIALS}
        if all(given.get(name) is None for name in limits):
            raise _fault(f"a search needs an end: give at least one of {', '.join(limits)}")
        return given

    @model_validator(mode="after")
    def _priced(self) -> BudgetSpec:
        if self.money is not None and self.price is None:
            raise _fault("'money' needs 'price', that of one GPU-hour", "money")
        return self


class Rerun(Section):
    """How many of the best are run again, with how many new seeds."""

    top: Count = 3
    seeds: Count = 3


class Retrain(Section):
    """With how many seeds the winner is trained on the whole training split."""

    seeds: Count = 1


class FinishSpec(Section):
    """What happens when the budget is spent. None leaves a step out."""

    rerun: Rerun | None = Rerun()
    retrain: Retrain | None = Retrain()
    export: Annotated[str, Field(min_length=1)] | None = None


def _format(value: int) -> int:
    if value != FORMAT:
        raise _fault(f"this version reads format {FORMAT}, got {value}")
    return value


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise _fault(f"'{value}' names the run's folder: use letters, digits, - _ and . (at most 100, no dot in front)")
    return value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise _fault("must not name one twice")
    return values


def _objectives(values: tuple[str, ...]) -> tuple[str, ...]:
    if values[0] != "top1" or len(values) > 2:
        raise _fault("the first objective is top1; a second one is gpu_seconds or parameters")
    return _distinct(values)


class Document(Section):
    """A whole file as pydantic sees it; ``search``, ``start_from`` and ``provenance`` are looked at elsewhere."""

    format: Annotated[int, AfterValidator(_format)]
    name: Annotated[str, AfterValidator(_name)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataSpec
    search: Any
    probe: ProbeSpec = ProbeSpec()
    schedule: ScheduleSpec = ScheduleSpec.model_validate({})
    sampler: SamplerSpec = SamplerSpec()
    objectives: Annotated[
        tuple[Literal["top1", "gpu_seconds", "parameters"], ...], Field(min_length=1), AfterValidator(_objectives)
    ] = ("top1",)
    start_from: tuple[Any, ...] = ()
    warm_start: tuple[str, ...] = ()
    budget: BudgetSpec = BudgetSpec(trials=DEFAULT_TRIALS)
    finish: FinishSpec = FinishSpec()
    provenance: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class SearchSpec:
    """A whole search-space file. Equal and hashable by value; ``origin`` (the file's folder) takes no part in that."""

    name: str
    seed: int
    data: DataSpec
    search_json: str
    probe: ProbeSpec
    schedule: ScheduleSpec
    sampler: SamplerSpec
    objectives: tuple[str, ...]
    start_json: str
    warm_start: tuple[str, ...]
    budget: BudgetSpec
    finish: FinishSpec
    provenance_json: str
    origin: str = field(default="", compare=False)

    @property
    def search(self) -> dict[str, Any]:
        """What lies under ``search``, as written."""
        return json.loads(self.search_json)  # type: ignore[no-any-return]

    @property
    def provenance(self) -> dict[str, Any]:
        """What an exported config says of where it comes from."""
        return json.loads(self.provenance_json)  # type: ignore[no-any-return]

    def space_hash(self) -> str:
        """SHA-256, hex, of what decides a trial's draws and score.

        That is data, search, schedule, probe, sampler, objectives and seed. Name, budget, finish, start_from,
        comments, the order of keys, the spelling of numbers and these sections' defaults leave it as it is.
        """
        parts = {
            "format": FORMAT,
            "seed": self.seed,
            "data": self.data.model_dump(exclude_none=True),  # so that a new optional word changes no old hash
            "search": _one_form(self.search),
            "schedule": self.schedule.model_dump(),
            "probe": self.probe.told(),
            "sampler": self.sampler.model_dump(),
            "objectives": self.objectives,
        }
        return hashlib.sha256(canonical(parts).encode()).hexdigest()


def from_document(document: Document, origin: str = "") -> SearchSpec:
    """The frozen whole of a validated document."""
    return SearchSpec(
        name=document.name,
        seed=document.seed,
        data=document.data,
        search_json=canonical(document.search),
        probe=document.probe,
        schedule=document.schedule,
        sampler=document.sampler,
        objectives=document.objectives,
        start_json=canonical(document.start_from),
        warm_start=document.warm_start,
        budget=document.budget,
        finish=document.finish,
        provenance_json=canonical(document.provenance),
        origin=origin,
    )


def canonical(value: Any) -> str:
    """JSON with sorted keys in which 1, 1.0 and 1e0 are one number."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _one_form(search: Any) -> Any:
    """``method: a``, ``method: {a: }`` and ``method: {one_of: {a: {}}}`` mean the same, and hash the same."""
    if not isinstance(search, Mapping) or "method" not in search:
        return search
    method = search["method"]
    if isinstance(method, Mapping) and "one_of" in method:
        method = method["one_of"]
    elif isinstance(method, str):
        method = {method: None}
    if isinstance(method, Mapping):
        method = {name: branch or {} for name, branch in method.items()}
    return {**search, "method": method}
