"""An Optuna storage that is a list: an observation may be replaced when its trial is scored at a higher rung.

Optuna's own storages never change a finished trial, so that a study of trials that climb a ladder would have to be
built anew for every proposal. Only what samplers call is here; the journal is the memory, this is a view of it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

STUDY = 0


class ListStorage(BaseStorage):
    """One study, its trials in a list; ``put`` sets or replaces the observation at a place."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self._directions: list[StudyDirection] = []
        self._name = ""
        self._attrs: dict[str, Any] = {}

    def put(self, place: int, trial: FrozenTrial) -> None:
        """Set the observation at ``place``, at most one behind the last."""
        trial.number = trial._trial_id = place
        self.trials[place : place + 1] = [trial]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._directions, self._name = list(directions), study_name or "model"
        return STUDY

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        place = len(self.trials)
        new = template_trial or FrozenTrial(place, TrialState.RUNNING, None, None, None, {}, {}, {}, {}, {}, place)
        self.put(place, new)
        return place

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self.trials[trial_id]
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self.trials[trial_id]
        trial.system_attrs = {**trial.system_attrs, key: value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self.trials[trial_id]
        trial.user_attrs = {**trial.user_attrs, key: value}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [t for t in self.trials if states is None or t.state in states]

    def get_study_id_from_name(self, study_name: str) -> int:
        return STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attrs

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._attrs[key] = value

    def get_all_studies(self) -> list[FrozenStudy]:
        raise NotImplementedError("a model has one study")

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError("a model's study is not deleted")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError("a model's study has no attributes of users")

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise NotImplementedError("observations are put, not told")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError("observations are put, not reported")
