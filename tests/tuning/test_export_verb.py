"""`skeltune export`: the published configurations come out as the repositories ship them, and what cannot be said."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from methods.errors import InputError
from methods.official.variants import REPOSITORIES
from methods.training.config import StreamsConfig, TrialConfig, published, with_settings
from tuning.cli import _run
from tuning.config.schema import Document, from_document
from tuning.official.export import TARGETS, export_official
from tuning.official.keys import flat, idle, settled
from tuning.space.export import dump

BOTH = [(repository, method) for repository, targets in TARGETS.items() for method in targets]
FAMILY = {"weight_decay": 1e-4, "base_lr": 0.1, "optimizer": "SGD", "nesterov": False, "batch_size": 128}
FEEDER = {"train_feeder_args": {"shear_amplitude": 0.5, "temperal_padding_ratio": 6}}
MOCO = {"feature_dim": 128, "queue_size": 32768, "momentum": 0.999, "hidden_channels": 16, "hidden_dim": 256}
BYOL = {"feature_dim": 512, "projection_hidden_size": 2048, "projection_size": 512, "prediction_hidden_size": 2048}

# What the repositories' own files say (methods.md, sections 2 to 9, and the files named in tuning/official/*.py).
SHIPPED: dict[str, dict[str, Any]] = {
    "aimclr": FAMILY
    | FEEDER
    | {"num_epoch": 300, "step": [250], "mining_epoch": 150, "topk": 1, "stream": "joint"}
    | {"model": "net.aimclr.AimCLR", "model_args": MOCO | {"Temperature": 0.07, "mlp": True, "dropout": 0.5}},
    "crossclr": FAMILY
    | FEEDER
    | {"num_epoch": 300, "step": [250], "cross_epoch": 150, "topk": 1, "context": True, "view": "all"}
    | {"model": "net.crossclr_3views.CrosSCLR", "model_args": MOCO | {"Temperature": 0.07, "dropout": 0.5}},
    "skeletonclr": FAMILY | FEEDER | {"num_epoch": 300, "step": [250], "view": "joint", "model_args": MOCO},
    "cmal": FAMILY
    | FEEDER
    | {"num_epoch": 60, "step": [300], "stream": "joint"}
    | {"model_args": BYOL | {"moving_average_decay": 0.996, "hidden_channels": 16, "dropout": 0.5}},
    "cmcs": FAMILY
    | FEEDER
    | {"num_epoch": 100, "step": [300], "stream": "all", "cross_epoch": 60}
    | {"model_args": BYOL | {"moving_average_decay": 0.996, "topk": 2, "lamb": 10}},
    "skelemixclr_plus": FAMILY
    | {"num_epoch": 300, "step": [300], "view": "joint"}
    | {"train_feeder_args": {"frames": [64], "shear_amplitude": 0.5, "temperal_padding_ratio": 6}}
    | {
        "model": "net.skeletonclr_multi_swapv2.SkeletonCLR",
        "model_args": MOCO
        | {"Temperature": 0.2}
        | {"swap_cfg": {"swap_params": [[2, 3, 7, 11, 3, 1.0]], "swap_mode": "swap", "spatial_mode": "semantic"}},
    },
    "skelemixclr": FAMILY
    | {"num_epoch": 300, "step": [300], "alpha": 1, "model": "net.skeletonclr_swap.SkeletonCLR"}
    | {"train_feeder_args": {"window_size": 64}}
    | {"model_args": MOCO | {"Temperature": 0.07, "spa_l": 1, "spa_u": 4, "tem_l": 1, "tem_u": 15}},
    "pstl": {"pretrain_epoch": 150, "pretrain_lr": 5e-3, "weight_decay": 1e-5, "batch_size": 128, "dropout": 0.5}
    | {"hidden_size": 256, "hidden_dim": 256, "hidden_channels": 16, "max_frame": 50, "temperal_padding_ratio": 6}
    | {"shear_amp": 1, "mask_joint": 8, "mask_frame": 10, "pj_size": 6144, "lambd": 2e-4, "view": "joint"},
    "scdnet": {"--lr": 0.01, "--batch-size": 64, "--encoder-t": 0.2, "--encoder-k": 8192, "--schedule": 351}
    | {"--epochs": 451, "--wd": 1e-4, "--momentum": 0.9, "--encoder-m": 0.999, "--encoder-dim": 128}
    | {"--skeleton-representation": "joint"},
    "cmd": {"--lr": 0.01, "--batch-size": 64, "--teacher-t": 0.05, "--student-t": 0.1, "--topk": 8192, "--mlp": None}
    | {"--contrast-t": 0.07, "--contrast-k": 16384, "--schedule": 351, "--epochs": 451, "--cmd-weight": 1}
    | {"--skeleton-representation": "graph-based"},
    "crrl": {"--batch_size": 32, "--epochs": 60, "--learning_rate": 0.05, "--hidden_units": 256, "--layers": 2}
    | {"--dropout": 0.2, "--momentum": 0.9, "--weight_decay": 1e-4, "--lr_decay_rate": 0.5},
}


def commands(text: str) -> list[dict[str, Any]]:
    """The settings of each command line of a file, numbers as numbers."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            found.append(_words(shlex.split(line)))
    return found


def _words(words: list[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if equals:
            said[name] = _number(value)
        elif word.startswith("--"):
            following = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else None
            said[word] = _number(following)
    return said


def _number(word: str | None) -> Any:
    try:
        return float(word or "")
    except ValueError:
        return word


def settings_of(text: str, method: str) -> dict[str, Any]:
    return commands(text)[0] if any(name in method for name in ("pstl", "scd", "cmd", "crrl")) else yaml.safe_load(text)


def assert_holds(said: dict[str, Any], wanted: dict[str, Any], where: str = "") -> None:
    for name, value in wanted.items():
        assert name in said, f"{where}{name} is missing"
        if isinstance(value, dict):
            assert_holds(said[name], value, f"{where}{name}.")
        else:
            assert said[name] == value, f"{where}{name}: {said[name]!r}, theirs {value!r}"


def changed(method: str, **settings: Any) -> TrialConfig:
    return with_settings(published(method, preset="paper_code"), {k.replace("__", "."): v for k, v in settings.items()})


def test_the_same_repositories_go_both_ways() -> None:
    assert TARGETS.keys() == REPOSITORIES.keys()
    assert {method for _, method in BOTH} == SHIPPED.keys()


@pytest.mark.parametrize(("repository", "method"), BOTH)
def test_the_published_configuration_is_what_ships(repository: str, method: str) -> None:
    found = export_official(published(method, preset="paper_code"), repository, "best.yaml")
    assert_holds(settings_of(found.text, method), SHIPPED[method])
    assert found.absent == () and found.edits == ()


@pytest.mark.parametrize(("repository", "method"), BOTH)
def test_every_setting_is_written_or_told(repository: str, method: str) -> None:
    """Change each setting in turn: the file is another one, or a line names the setting (or it takes no effect)."""
    base = published(method, preset="paper_code")
    before = export_official(base, repository, "best.yaml").text
    silent = []
    for name, value in flat(base).items():
        config = _with_another(base, name, value)
        if config is None or name in idle(settled(config)):
            continue
        if export_official(config, repository, "best.yaml").text == before:
            silent.append(name)
    inactive = {"joints_least", "joints_more", "encoder.name"} | ({"reduce"} if method == "skelemixclr" else set())
    assert set(silent) <= inactive, silent


def _with_another(config: TrialConfig, name: str, value: Any) -> TrialConfig | None:
    """The configuration with another value there, of the same kind; None where none is valid."""
    options: list[Any] = [not value] if isinstance(value, bool) else []
    if not options and isinstance(value, int | float):
        options = [value * 2, value / 2, value + 1, 0.5] if isinstance(value, float) else [value * 2, value + 1, 1]
    if isinstance(value, str):
        words = "cosine constant step adam sgd copy own mean sum any parts zeros swap real all both forward reverse max"
        options = f"{words} view spatial spatial_degenerate inward_outward torch xavier normal scale none bf16".split()
    if name == "streams.use":
        if config.method == "crrl":  # which has joints only
            return None
        return dataclasses.replace(config, streams=StreamsConfig(use=("bone",) if len(value) == 1 else value[:2]))
    for option in options:
        try:
            found = with_settings(config, {name: option})
        except (InputError, TypeError):
            continue
        if option != value:
            return found
    return None


def test_shares_of_the_run_become_epochs() -> None:
    found = export_official(changed("aimclr", epochs=200, mining_start=0.3, optim__step_at=0.9), "aimclr", "b")
    said = yaml.safe_load(found.text)
    assert (said["num_epoch"], said["mining_epoch"], said["step"]) == (200, 60, [180]) and found.remarks == ()
    found = export_official(changed("crossclr", epochs=100, cross_start=0.537), "crossclr", "b")
    assert (yaml.safe_load(found.text)["cross_epoch"], yaml.safe_load(found.text)["step"]) == (54, [83])
    assert set(found.remarks) == {
        "cross_start: 53.7 is meant, cross_epoch takes 54",
        "optim.step_at: 83.3333 is meant, step takes [83]",
    }
    first, second = commands(export_official(changed("crrl", epochs=90, fuse_start=0.7), "crrl", "b").text)
    assert (first["--epochs"], second["--epochs"]) == (63, 27)
    assert (first["--contrastive"], first["--teacher_student"], second["--teacher_student"]) == (1, "", 1)


def test_strength_is_folded_into_what_it_scales() -> None:
    found = export_official(changed("skeletonclr", augment__strength=0.5), "crossclr", "b")
    feeder = yaml.safe_load(found.text)["train_feeder_args"]
    assert (feeder["shear_amplitude"], feeder["temperal_padding_ratio"]) == (0.25, 12)
    off = yaml.safe_load(export_official(changed("skeletonclr", augment__strength=0.0), "crossclr", "b").text)
    assert off["train_feeder_args"]["shear_amplitude"] == off["train_feeder_args"]["temperal_padding_ratio"] == -1
    half = export_official(changed("aimclr", augment__strength=0.5), "aimclr", "b")
    assert any(line.startswith("augment.rotate: 15 (there 30)") for line in half.absent)


def test_operations_are_switched_by_letter() -> None:
    found = export_official(changed("aimclr", augment__blur=0.0, augment__time_flip=0.5), "aimclr", "b")
    assert yaml.safe_load(found.text)["train_feeder_args"]["aug_method"] == "12356"
    assert found.absent == ()


def test_what_has_no_counterpart_is_listed() -> None:
    found = export_official(published("aimclr"), "aimclr", "best.yaml")
    for line in ("init_sync: true (there false)", "augment.flip_reflect: true (there false)"):
        assert line in found.absent and line in found.text
    config = changed("skeletonclr", momentum_schedule="cosine", encoder__depth=8, hidden=512, optim__schedule="cosine")
    found = export_official(config, "crossclr", "b")
    assert set(found.absent) == {
        "momentum_schedule: cosine (there constant)",
        "encoder.depth: 8 (there 10)",
        "hidden: 512 (there 256)",
        "optim.schedule: cosine (step cannot say it)",
    }
    assert "step" not in yaml.safe_load(found.text)
    # Their head is as wide as the feature, so that this one can be said.
    assert export_official(changed("skeletonclr", hidden=512, encoder__dim=512), "crossclr", "b").absent == ()
    adam = export_official(changed("cmd", optim__name="adam"), "cmd", "b")
    assert adam.absent == ("optim.name: adam (there SGD)",)


def test_what_stands_in_their_code_is_told_where() -> None:
    found = export_official(changed("scdnet", encoder__heads=4, frames=32), "scdnet", "b")
    assert any(line.startswith("encoder.heads: 4 (there 8), in options/") for line in found.edits)
    assert any(line.startswith("frames: 32 (there 64), in options/") for line in found.edits)
    found = export_official(changed("crrl", temperature=0.2), "crrl", "b")
    assert found.edits == ("temperature: 0.2 (there 0.1), in src/parse_args_for_pretrain.py, opt.temperature",)


def test_remarks_on_what_their_code_asserts_and_on_streams() -> None:
    config = changed("skeletonclr", queue=1000)
    config = dataclasses.replace(config, streams=StreamsConfig(use=("bone", "joint")))
    found = export_official(config, "crossclr", "b")
    assert "the queue must be a multiple of the batch there, 1000 is none of 128" in found.remarks
    assert "a stream is a run of its own there: run again with view joint" in found.remarks
    assert yaml.safe_load(found.text)["view"] == "bone"
    two = dataclasses.replace(changed("crossclr"), streams=StreamsConfig(use=("joint", "motion")))
    assert yaml.safe_load(export_official(two, "crossclr", "b").text)["model"] == "net.crossclr.CrosSCLR"
    odd = dataclasses.replace(two, streams=StreamsConfig(use=("joint", "bone")), params=changed("crossclr").params)
    assert any("model cannot say it" in line for line in export_official(odd, "crossclr", "b").absent)


def test_mixtures_of_other_lengths_are_counted_in_their_segments() -> None:
    said = yaml.safe_load(export_official(changed("skelemixclr_plus", frames=32), "skelemixclr", "b").text)
    assert said["model_args"]["swap_cfg"]["swap_params"] == [[2, 3, 4, 6, 3, 1.0]]
    several = yaml.safe_load(export_official(changed("skelemixclr", repeats=2), "skelemixclr", "b").text)
    assert several["model"] == "net.skeletonclr_multi_swap.SkeletonCLR" and several["model_args"]["repeat"] == 2
    cosine = yaml.safe_load(export_official(changed("skelemixclr", optim__schedule="cosine"), "skelemixclr", "b").text)
    assert cosine["cos"] == 1


def test_a_method_of_another_repository_is_sent_there() -> None:
    with pytest.raises(InputError, match="it is --to cmcs"):
        export_official(published("cmal"), "crossclr", "b")
    with pytest.raises(InputError, match="no official repository"):
        export_official(published("skeletonbyol"), "cmcs", "b")
    with pytest.raises(InputError, match="did you mean 'scdnet'"):
        export_official(published("scdnet"), "scd-net", "b")


# --- the verb -------------------------------------------------------------------------------------------------------


@pytest.fixture
def best(tmp_path: Path) -> Path:
    document = {"format": 1, "name": "best", "data": {"set": "synthetic"}, "search": {}}
    path = tmp_path / "best.yaml"
    path.write_text(dump(from_document(Document.model_validate(document)), published("cmcs")))
    return path


def test_the_verb_prints_or_writes(best: Path, tmp_path: Path, capsys) -> None:
    assert _run(["export", str(best), "--to", "cmcs"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["cross_epoch"] == 60
    out = tmp_path / "pretext.yaml"
    assert _run(["export", str(best), "--to", "cmcs", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "init_sync: true (there false)" in told and str(out) in told
    assert yaml.safe_load(out.read_text()) == yaml.safe_load(printed)
    assert f"--config {out}" in out.read_text()


def test_what_a_user_may_get_wrong(best: Path, tmp_path: Path, capsys) -> None:
    for words, hint in (
        ([str(best), "--to", "crossclr"], "it is --to cmcs"),
        ([str(best), "--to", "skeltune"], "unknown repository 'skeltune'"),
        ([str(tmp_path / "none.yaml"), "--to", "cmcs"], "none.yaml"),
        ([str(best), "--to", "cmcs", "--out", str(tmp_path / "no" / "where.yaml")], "cannot be written"),
    ):
        assert _run(["export", *words]) == 2
        said = capsys.readouterr().err
        assert hint in said and "Traceback" not in said
    best.write_text(best.read_text().replace("cross_weight: 10.0", "cross_weight: {log: [1, 10]}"))
    assert _run(["export", str(best), "--to", "cmcs"]) == 2
    assert "still free" in capsys.readouterr().err
