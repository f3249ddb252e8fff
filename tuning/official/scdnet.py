"""cong-wu/SCD-Net at 0af1b19: the flags of pretraining.py as in its README, options/options_pretraining.py."""

from __future__ import annotations

from tuning.official import family, isc
from tuning.official.keys import Key, Target

TARGETS = {
    "scdnet": Target(
        title="SCD-Net",
        url="cong-wu/SCD-Net",
        commit="0af1b19",
        source="pretraining.py, as its README calls it",
        run="python pretraining.py",
        style="flags",
        template={**isc.DATA, "--workers": 24},
        keys=(
            *isc.OPTIM,
            Key("temperature", "--encoder-t"),
            Key("queue", "--encoder-k"),
            Key("momentum", "--encoder-m"),
            Key("projection", "--encoder-dim"),
            Key("streams.use", "--skeleton-representation", family.stream),
        ),
        elsewhere={
            **isc.OPTIONS,
            "encoder.d_model": "options/options_pretraining.py, hidden_size",
            "encoder.heads": "options/options_pretraining.py, num_head",
            "encoder.layers": "options/options_pretraining.py, num_layer",
            "encoder.base": "scd/scd_encoder.py, hidden_size of Encoder",
        },
        there={"hidden": lambda config: config.encoder.d_model},
        remarks=lambda config: (
            *family.queue_fits(config),
            *family.one_stream_a_run(config, "--skeleton-representation"),
        ),
    )
}
