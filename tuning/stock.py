"""The baseline engine: Ray's own OptunaSearch and ASHAScheduler, made to survive a restart by the journal.

Their rules of choosing and stopping are left as Ray has them (research: they compare values of unlike fidelity, and
let the first arrivals at a rung go on for free); what is added is only memory. This is the engine to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState as OptunaState
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from methods.training.seeds import derive_seed
from tuning.config.schema import SearchSpec
from tuning.engine.ladder import Ladder
from tuning.engine.sampler.study import distribution
from tuning.engine.state import CULLED, FAILED, TOP, JournalState, TrialState, scored
from tuning.recorder import Recorder
from tuning.space import Space
from tuning.space.domains import Draw
from tuning.space.space import METHOD
from tuning.trial import unpack
from tuning.unsaved import Unsaved
from tuning.watching.mishap import Mishap, read_mishap

SCORE, MODE, TIME = "top1", "max", "epoch"
_STUDY = "skeltune"
optuna.logging.set_verbosity(optuna.logging.WARNING)  # the journal tells the story

TaskMaker = Callable[[TrialState], dict[str, Any]]


class DottedTrial:
    """An Optuna trial under other names: Ray unflattens keys at ``/`` and would lose ``method`` beside ``method/x``."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def suggest_float(self, name: str, low: float, high: float, **rest: Any) -> float:
        return float(self._trial.suggest_float(dotted(name), low, high, **rest))

    def suggest_int(self, name: str, low: int, high: int, **rest: Any) -> int:
        return int(self._trial.suggest_int(dotted(name), low, high, **rest))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._trial.suggest_categorical(dotted(name), choices)


def dotted(name: str) -> str:
    """A draw's name as the study has it."""
    return name.replace("/", ".")


class Definition:
    """The space as the define-by-run function that OptunaSearch wants; an object, so that it can be pickled."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def __call__(self, trial: Any) -> None:
        self.space.suggest(DottedTrial(trial))


def make_sampler(name: str, seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """TPE or random, seeded."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)


class StockSearcher(Unsaved, Searcher):  # type: ignore[misc]  # ray is not typed
    """OptunaSearch with a memory: unfinished trials come first, finished ones are in the study before the first ask."""

    def __init__(
        self,
        space: Space,
        spec: SearchSpec,
        recorder: Recorder,
        make_task: TaskMaker,
        may_ask: Callable[[], bool],
        random_only: bool = False,
    ) -> None:
        super().__init__(metric=SCORE, mode=MODE)
        self.space, self.recorder, self.make_task, self.may_ask = space, recorder, make_task, may_ask
        state = recorder.journal.state
        self._pending = list(state.pending)
        self._numbers: dict[str, int] = {}
        storage = optuna.storages.InMemoryStorage()
        study = optuna.create_study(storage=storage, study_name=_STUDY, direction="maximize")
        self._fill(study, state, spec)
        # A restarted sampler must not repeat the draws of its first life, so the number of asks enters its seed.
        seed = derive_seed(spec.seed, "sampler", len(state.trials)) % 2**32
        name = "random" if random_only else spec.sampler.name
        self.inner = OptunaSearch(
            space=Definition(space),
            metric=SCORE,
            mode=MODE,
            storage=storage,
            study_name=_STUDY,
            sampler=make_sampler(name, seed, spec.sampler.startup_trials),
        )

    def _fill(self, study: optuna.Study, state: JournalState, spec: SearchSpec) -> None:
        """Finished trials as the stock searcher would have told them; unfinished and first ones into the queue."""
        for trial in state.ended:
            study.add_trial(self._frozen(trial))
        for trial in self._pending:
            study.enqueue_trial(_dotted_draws(trial.draws))
        begun = sum(1 for t in state.trials.values() if t.origin == "start")
        for draws in self.space.start_draws()[begun:]:
            study.enqueue_trial(_dotted_draws(draws), user_attrs={"origin": "start"})

    def _frozen(self, trial: TrialState) -> optuna.trial.FrozenTrial:
        last = trial.last_rung
        value = last.top1 if last is not None else None
        state = OptunaState.COMPLETE if value is not None else OptunaState.PRUNED
        if trial.ended == FAILED:
            state, value = OptunaState.FAIL, None
        found = asked_for(self.space, trial.draws)
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params={dotted(draw.name): trial.draws[draw.name] for draw in found},
            distributions={dotted(draw.name): distribution(draw) for draw in found},
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """The task of an unfinished trial while there is one, else of a new one."""
        if not self._pending and not self.may_ask():
            return Searcher.FINISHED  # type: ignore[no-any-return]
        self.inner.suggest(trial_id)
        asked = self.inner._ot_trials[trial_id]
        if self._pending:
            state = self.recorder.begun(self._pending.pop(0))
        else:
            drawn = {name.replace(".", "/"): value for name, value in asked.params.items()}
            origin = "start" if asked.user_attrs.get("origin") == "start" else "sampler"
            state = self.recorder.asked({METHOD: self.space.methods[0], **drawn}, origin)
        self._numbers[trial_id] = state.trial
        return self.make_task(state)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Only rungs carry a score; an epoch between them is a heartbeat and nothing to model."""
        if SCORE in result:
            self.inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Told with the last score, as stock does, or with none when it could not go on: TPE then ranks it last."""
        if trial_id not in self._numbers:
            return
        self.inner.on_trial_complete(trial_id, result if result and SCORE in result else None, error)
        if error:  # only here is a failure final: the scheduler hears of every one, retried or not
            self.recorder.failed(self._numbers[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the memory, and Ray's snapshot is never read."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its journal, never from Ray's snapshot")


def asked_for(space: Space, draws: Mapping[str, Any]) -> list[Draw]:
    """The dimensions that were proposed to make ``draws``: those of its branch, and the method if there are two."""
    method = [space.method_draw] if len(space.branches) > 1 else []
    return [*method, *space.branch(draws[METHOD]).draws]


def _dotted_draws(draws: Mapping[str, Any]) -> dict[str, Any]:
    return {dotted(name): value for name, value in draws.items()}


class StockAsha(Unsaved, ASHAScheduler):  # type: ignore[misc]  # ray is not typed
    """ASHAScheduler that knows trials by their own numbers, so that rungs can be filled again after a restart."""

    def __init__(self, ladder: Ladder, recorder: Recorder, stopping: Callable[[], bool] = lambda: False) -> None:
        super().__init__(
            time_attr=TIME,
            metric=SCORE,
            mode=MODE,
            max_t=ladder.top,
            grace_period=ladder.rungs[0],
            reduction_factor=ladder.eta,
        )
        self.ladder, self.recorder, self.stopping = ladder, recorder, stopping
        # Ray finds its rungs by a floating-point logarithm; ours are the ones that trials are probed at.
        self._brackets[0]._rungs = [(rung, {}) for rung in reversed(ladder.rungs[:-1])] or [(ladder.top, {})]
        self._replay()

    def _replay(self) -> None:
        """Feed the rungs in the order in which results came; a cut that was decided but not written is made now."""
        for trial, report in scored(self.recorder.journal.state):
            if report.top1 is None or report.epoch >= self.ladder.top:
                continue
            cut = self._cutoff(report.epoch)
            action = self._brackets[0].on_result(_named(trial.trial), report.epoch, report.top1)
            last = trial.last_rung
            if (
                action == TrialScheduler.STOP
                and trial.ended is None
                and last is not None
                and last.epoch == report.epoch
            ):
                self.recorder.ended(trial.trial, CULLED, _cull_line(report.epoch, report.top1, cut))
        for trial in list(self.recorder.journal.state.pending):
            if trial.at(self.ladder.top) is not None:
                self.recorder.ended(trial.trial, TOP)

    def _cutoff(self, rung: int) -> float | None:
        recorded = dict(self._brackets[0]._rungs).get(rung)
        cut: Any = self._brackets[0].cutoff(recorded) if recorded else None
        return None if cut is None else float(cut)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _named(number_of(trial)))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Journal first, then decide, then journal the decision."""
        number, payload = number_of(trial), unpack(result)
        if payload is None:
            return str(TrialScheduler.CONTINUE)
        self.recorder.reported(number, payload)
        cut = self._cutoff(int(payload["epoch"]))
        action = str(super().on_trial_result(tune_controller, _named(number), result))
        if action == TrialScheduler.STOP:
            self.recorder.ended(number, CULLED, _cull_line(payload["epoch"], payload["top1"], cut))
        elif self.stopping():
            return str(TrialScheduler.STOP)  # leaves the trial unfinished in the journal, to be continued
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The trial ended itself: at the top, or because it could not go on."""
        number, payload = number_of(trial), unpack(result)
        super().on_trial_complete(tune_controller, _named(number), result)
        if payload is not None:
            self.recorder.reported(number, payload)
            self.recorder.ended(number, payload.get("ended", TOP), payload.get("detail", ""))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """The trial's process failed; Ray retries it or tells the searcher that it is over."""
        self.recorder.faltered(number_of(trial), mishap_of(trial).line)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, _named(number_of(trial)))


def number_of(trial: Any) -> int:
    """Our number of a Ray trial: t0007 -> 7."""
    return int(trial.config["task"]["key"][1:])


def _named(number: int) -> Any:
    """All that ASHA reads of a trial."""
    return SimpleNamespace(trial_id=number)


def mishap_of(trial: Any) -> Mishap:
    """What the error of a failed trial says. Ray writes it to a local file first, and copies that later."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError, AttributeError):
        text = ""
    return read_mishap(text)


def _cull_line(epoch: int, top1: float, cut: float | None) -> str:
    limit = "" if cut is None else f" < {100 * cut:.1f}"
    return f"culled at {epoch}: {100 * top1:.1f}{limit}"
