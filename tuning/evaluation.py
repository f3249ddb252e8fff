"""`skeltune evaluate`: the weights of a checkpoint, judged by named protocols on a dataset, in this process.

Beside the finish of a search this is the only place that reads a test split; all that it says names split, protocol,
which epoch counts and the number of draws.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from methods.data.layouts import Layout
from methods.data.splits import Split
from methods.errors import InputError
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.config import TrialConfig
from methods.training.downstream import REPORTS, SIDES, TOGETHER, Judgement, Score, judge
from methods.training.evaluate import whole_training
from methods.training.fusion import Fusion, parse_fusion
from methods.training.predictors import FUSED, Progress, Shared
from methods.training.probe import ProbeConfig
from methods.training.protocols import ProbeProtocol, Protocol, get_protocol, lasting
from methods.training.views import fitting_store
from tuning.config.schema import Document, SearchSpec, from_document
from tuning.datasets import DataSource, source_of
from tuning.plan import probe_config
from tuning.session import pick_device
from tuning.space import load_search
from tuning.words import duration

TOLD_EVERY_S = 10.0  # between two lines about one training


@dataclass(frozen=True)
class Wishes:
    """What may be asked of an evaluation beside the checkpoint; None leaves it to the file or the protocol."""

    data: str | None = None
    split: str | None = None
    on: str = "test"
    protocols: tuple[str, ...] = ()
    kind: str | None = None
    solver: str | None = None
    report: str = "last"
    fuse: str | None = None
    draws: int | None = None
    epochs: int | None = None
    device: str = "auto"


def evaluate(
    checkpoint_file: Path | str,
    config_file: Path | str | None,
    wishes: Wishes | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judge a checkpoint by each protocol in turn; returns plain values, see :func:`lines`.

    ``config_file`` names data, split and probe; it may be left out where ``wishes.data`` names other data (transfer).
    ``say`` hears how long trainings get on. Raises ``InputError``.
    """
    wishes = wishes or Wishes()
    named = _named(wishes)
    spec = _spec(config_file, wishes)
    protocols = _protocols(named, spec, config_file is not None, wishes)
    where = pick_device(wishes.device)
    state = checkpoint.read(Path(checkpoint_file), where)
    config, model = checkpoint.load_model(state, where)
    fusion = None if wishes.fuse is None else parse_fusion(wishes.fuse, config.streams.use)
    source = _source(spec, wishes)
    clips = source.clips(config.frames, config.preprocess)
    layout = Layout.from_dict(state["layout"])
    store = fitting_store(ClipStore(clips, where), layout, state.get("channels", 3), state.get("persons", 2))
    split = source.split()
    found: dict[str, Any] = {
        "checkpoint": str(checkpoint_file),
        "method": config.method,
        "epoch": state["epoch"],
        "data": source.path,
        "fingerprint": source.fingerprint,
        "split": split.name,
        "split_note": split.note,
        "on": wishes.on,
        "notes": _origin(state, clips.fingerprint, split, wishes.on),
    }
    shared: Shared = {}
    results = [_judged(model, store, split, each, wishes, fusion, say, shared) for each in protocols]
    found["results"] = [_plain(result) for result in results]
    return found | (_as_probe(protocols[0], results[0], config) if len(results) == 1 else {})


def _judged(
    model: Branches,
    store: ClipStore,
    split: Split,
    protocol: Protocol,
    wishes: Wishes,
    fusion: Fusion | None,
    say: Callable[[str], None],
    shared: Shared,
) -> Judgement:
    return judge(
        model,
        store,
        split,
        protocol,
        on=wishes.on,
        report=wishes.report,
        fusion=fusion,
        draws=wishes.draws,
        tell=_paced(say),
        shared=shared,
    )


# --- what is asked --------------------------------------------------------------------------------------------------


def _spec(config_file: Path | str | None, wishes: Wishes) -> SearchSpec:
    if config_file is not None:
        return load_search(Path(config_file))[0]
    if wishes.data is None:
        raise InputError("say what to judge on: --config with the file that names data and split, or --data")
    data = {"set": wishes.data} | ({"split": wishes.split} if wishes.split else {})
    return from_document(Document.model_validate({"format": 1, "name": "evaluate", "data": data, "search": {}}))


def _named(wishes: Wishes) -> list[Protocol]:
    """The protocols that are asked for by name. Raises ``InputError`` with every fault of the wishes at once."""
    found: list[Protocol] = []
    faults = list(_word_faults(wishes))
    for name in wishes.protocols:
        try:
            found.append(get_protocol(name))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    return found


def _protocols(named: list[Protocol], spec: SearchSpec, from_file: bool, wishes: Wishes) -> list[Protocol]:
    """Those, or the file's own probe (without a file our linear one); each over the epochs that are asked for."""
    if not named and not from_file and wishes.kind is None and wishes.solver is None:
        named = [get_protocol("linear")]
    if not named:
        probe = probe_config(spec)
        probe = dataclasses.replace(probe, kind=wishes.kind or probe.kind, solver=wishes.solver or probe.solver)
        named = [ProbeProtocol(name="probe", doc="the probe of the file", probe=probe)]
    return named if wishes.epochs is None else [lasting(each, wishes.epochs) for each in named]


def _word_faults(wishes: Wishes) -> Iterator[str]:
    if wishes.on not in SIDES:
        yield f"--on must be test or validation, got '{wishes.on}'"
    if wishes.report not in REPORTS:
        yield f"--report must be last or best, got '{wishes.report}'"
    if wishes.protocols and (wishes.kind or wishes.solver):
        yield "--kind and --solver change the file's own probe; with --protocol, name a protocol that does it"
    if wishes.data == "" or wishes.split == "":
        yield "--data and --split must name something"
    if wishes.draws is not None and wishes.draws < 1:
        yield f"--draws must be at least 1, got {wishes.draws}"
    if wishes.epochs is not None and wishes.epochs < 1:
        yield f"--epochs must be at least 1, got {wishes.epochs}"
    doubled = sorted({name for name in wishes.protocols if wishes.protocols.count(name) > 1})
    if doubled:
        yield f"--protocol names {', '.join(doubled)} twice"


def _source(spec: SearchSpec, wishes: Wishes) -> DataSource:
    """The data of the file, or what is asked for in its place, with a split of it."""
    changes: dict[str, Any] = {}
    if wishes.split is not None:
        changes["split"] = wishes.split
    if wishes.data is not None:
        changes["set"] = wishes.data
        if not isinstance(spec.data.validate_on, str):
            changes["validate_on"] = "auto"  # the file's list is of subjects of other data
    # What a command line names lies beside the caller, not beside the file.
    origin = spec.origin if wishes.data is None else ""
    spec = dataclasses.replace(spec, data=spec.data.model_copy(update=changes), origin=origin)
    try:
        source = source_of(spec)
    except InputError as error:
        if wishes.data is None:
            raise
        raise InputError(*(fault.replace("data.set:", "--data:", 1) for fault in error.faults)) from None
    if wishes.on == "test" and source.validate_on == "auto" and (source.dataset().subjects < 0).all():
        # Nobody is known, and for a test score nobody needs to be: the whole training side is trained on.
        return dataclasses.replace(source, validate_on={"held_out_share": 0.15})
    return source


def _origin(state: Mapping[str, Any], fingerprint: str, split: Split, on: str) -> list[str]:
    """What the checkpoint's own training has to do with the clips that are scored."""
    if state["fingerprint"] != fingerprint:
        return ["the checkpoint was pretrained on other data or other preprocessing: a transfer"]
    sides = {checkpoint.digest_of(split.train): "train", checkpoint.digest_of(whole_training(split)): "whole"}
    side = sides.get(state["index"])
    if side is None:
        return [f"the checkpoint was pretrained on other clips of this data than split {split.name} trains on"]
    if on == "validation" and side == "whole" and len(split.validation):
        return ["the checkpoint's pretraining has seen the validation subjects' clips (without their labels)"]
    return []


def _paced(say: Callable[[str], None]) -> Callable[[Progress], None]:
    """Tell of a long training now and then, at most twenty times; a short one is not told of."""
    begun = told = time.monotonic()
    last = 0

    def tell(at: Progress) -> None:
        nonlocal begun, told, last
        now = time.monotonic()
        if at.epoch == 1:
            begun, told, last = now - at.seconds, now - at.seconds, 0
        if now - told < TOLD_EVERY_S or (at.epoch - last) * 20 < at.epochs:
            return
        told, last = now, at.epoch
        draw = f" draw {at.draw} of {at.draws}" if at.draws > 1 else ""
        what = f", {at.what}" if at.what else ""
        left = duration((now - begun) / at.epoch * (at.epochs - at.epoch))
        say(
            f"{at.protocol}{draw}{what}: epoch {at.epoch:>3}/{at.epochs}  loss {at.loss:.4f}  lr {at.lr:.3g}"
            f"  about {left} left"
        )

    return tell


# --- what is found --------------------------------------------------------------------------------------------------


def _plain(found: Judgement) -> dict[str, Any]:
    """Numbers, strings and lists of a judgement."""
    return {
        "protocol": found.protocol.name,
        "doc": found.protocol.doc,
        "source": found.protocol.source,
        "settings": _settings(found.protocol),
        "on": found.on,
        "split": found.split,
        "report": found.report,
        "epoch_rule": found.epoch_rule,
        "draws": found.draws,
        "labelled": found.labelled,
        "clips": found.clips,
        "fusion": {"rule": found.fusion, "weights": [list(weights) for weights in found.weights]},
        "scores": [_score(score) for score in found.scores],
        "failed": list(found.failed),
        "notes": list(found.notes),
    }


def _settings(protocol: Protocol) -> dict[str, Any]:
    told = dataclasses.asdict(protocol)
    return {name: value for name, value in told.items() if name not in ("name", "doc", "source")}


def _score(score: Score) -> dict[str, Any]:
    return {
        "stream": score.stream,
        "top1": score.mean,
        "spread": score.spread,
        "values": list(score.top1),
        "losses": list(score.loss),
        "epochs": list(score.epochs),
    }


def _as_probe(protocol: Protocol, found: Judgement, config: TrialConfig) -> dict[str, Any]:
    """The short form for scripts that want one number: of a single protocol, its (fused) mean."""
    if not found.scores:
        return {}
    streams = {score.stream: [score.mean, float(np.mean(score.loss))] for score in found.scores}
    whole = streams.pop(FUSED, None) or streams[config.streams.use[0]]
    probe = dataclasses.asdict(protocol.probe if isinstance(protocol, ProbeProtocol) else ProbeConfig())
    told = {"top1": whole[0], "loss": whole[1], "streams": streams, "clips": found.clips}
    told["fuse"] = [float(w) for w in np.mean(found.weights, axis=0)] if found.weights[0] else []
    return told | ({"probe": probe} if isinstance(protocol, ProbeProtocol) else {})


def lines(found: Mapping[str, Any]) -> list[str]:
    """The findings as a table: a row for each stream of each protocol, in percent, mean ± spread over the draws."""
    head = ("protocol", "stream", "top1", "labelled", "draws", "which epoch", "weights")
    rows = [head, *(row for result in found["results"] for row in _rows(result))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    clips = found["results"][0]["clips"]
    told = [
        f"{found['checkpoint']}: {found['method']}, epoch {found['epoch']}",
        f"{found['data']}, split {found['split']}: {found['on']}, {clips} clips",
    ]
    told += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for result in found["results"]:
        told += [f"{result['protocol']}: {fault}; it counts for nothing above" for fault in result["failed"]]
        told += [f"note: {note}" for note in result["notes"]]
    return told + [f"note: {note}" for note in found["notes"]]


def _rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    done = result["draws"] - len(result["failed"])
    draws = str(result["draws"]) if done == result["draws"] else f"{done} of {result['draws']}"
    if not result["scores"]:
        return [(result["protocol"], "-", "none", str(result["labelled"]), draws, result["epoch_rule"], "")]
    rows: list[tuple[str, ...]] = []
    for score in result["scores"]:
        top1 = f"{100 * score['top1']:.2f}"
        if score["spread"] is not None:
            top1 += f" ± {100 * score['spread']:.2f}"
        epochs = sorted(set(score["epochs"])) if result["report"] == "best" else []
        which = result["epoch_rule"] + (f" ({', '.join(map(str, epochs))})" if epochs else "")
        weights = _weights(result["fusion"]) if score["stream"] == FUSED else ""
        rows.append((result["protocol"], score["stream"], top1, str(result["labelled"]), draws, which, weights))
    return rows


def _weights(fusion: Mapping[str, Any]) -> str:
    if fusion["rule"] == TOGETHER:
        return TOGETHER
    mean = np.mean(fusion["weights"], axis=0)
    return f"{fusion['rule']} ({', '.join(f'{w:.2f}' for w in mean)})"


def failures(found: Mapping[str, Any]) -> list[str]:
    """A line for each protocol that has no score at all."""
    return [
        f"{result['protocol']}: no draw came to its end ({'; '.join(result['failed'])})"
        for result in found["results"]
        if not result["scores"]
    ]
