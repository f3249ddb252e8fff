"""What the puppets of the generated skeletons can do: one function fills the pose columns of one movement.

Angles are degrees and rates hertz. Every range is drawn by `Take.vary` from the person's habit and the clip's mood, so
that no two clips of a class agree in more than what makes the class. All are written for the right-handed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from methods.data.synthetic.puppet import Array, Style, Take, curve, draw_style, smooth

# ---- movements of one person ----------------------------------------------------------------------------------------


def _stride(k: Take, weight: float | Array, phase: Array, length: float, swing: float | Array) -> None:
    """Walking legs and, by `swing`, the arms that go with them; phase in radians, length = hip excursion, degrees."""
    for side, shift in (("r", 0.0), ("l", np.pi)):
        at = phase + shift
        k.add(**{f"hip_{side}": weight * length * np.sin(at), f"flat_{side}": -0.5 * weight,
                 f"knee_{side}": weight * (6 + 1.7 * length * np.maximum(0.0, np.cos(at)) ** 1.5)})  # fmt: skip
        k.arm(side, weight * swing, -0.9 * length * np.sin(at), 7, 5, 18 + 8 * np.sin(-at))


def _walk(k: Take) -> None:
    rate = 0.85 * k.tempo
    moving = k.window(0.7)
    phase = 2 * np.pi * rate * k.t + k.rng.uniform(0, 2 * np.pi)
    _stride(k, moving, phase, 27 * k.gain, 1.0 if k.chance(0.6) else 0.15)
    heading = k.rng.uniform(-25, 25) * smooth(k.t / k.t[-1])
    step = 1.25 * k.gain * rate * moving * np.gradient(k.t)
    for name, part in (("x", np.sin(np.radians(heading))), ("z", np.cos(np.radians(heading)))):
        path = np.cumsum(step * part)
        k.add(**{name: path - path.mean()})
    k.add(yaw=heading, spine_yaw=moving * 6 * np.sin(phase))
    k.planted = {"l": 0.0, "r": 0.0}


def _wave(k: Take) -> None:
    abd = k.vary(0, 30, 115)
    flap = k.vary(1, 14, 32) * k.gain * np.sin(2 * np.pi * k.vary(2, 1.1, 2.3) * k.tempo * k.t + k.rng.uniform(0, 6))
    k.arm("r", k.window(), k.vary(3, -5, 40), abd + 0.2 * flap, -75 + k.rng.normal(0, 8), 160 - abd + flap)
    k.add(spine_roll=k.window() * k.rng.uniform(-6, 3))


def _jump(k: Take) -> None:
    u = k.beats(0.85, 1, 3)
    crouch = curve(u, (0, 0), (0.3, 1), (0.45, 0), (0.7, 0), (0.82, 0.6), (1, 0)) * k.vary(0, 0.6, 1.25)
    air = np.clip((u - 0.42) / 0.32, 0, 1)
    k.add(lift=k.vary(1, 0.1, 0.34) * 4 * air * (1 - air), pitch=22 * crouch, spine_pitch=10 * crouch)
    k.legs(52 * crouch, 80 * crouch)
    toes = curve(u, (0, 0), (0.4, 0), (0.5, 1), (0.68, 1), (0.76, 0), (1, 0))
    k.add(ankle_l=-30 * toes, ankle_r=-30 * toes)
    if k.chance(0.6):
        busy = curve(u, (0, 0), (0.15, 1), (0.85, 1), (1, 0))
        reach = curve(u, (0, 0), (0.3, -30), (0.5, k.vary(2, 40, 150)), (0.8, 10), (1, 0))
        for side in "lr":
            k.arm(side, busy, reach, 12, 0, 25)


def _squat(k: Take) -> None:
    u = k.beats(0.5, 1, 3)
    down = curve(u, (0, 0), (0.4, 1), (0.6, 1), (1, 0)) * k.vary(0, 55, 108)
    k.legs(down, 1.1 * down)
    k.add(pitch=0.32 * down, hip_abd_l=0.08 * down, hip_abd_r=0.08 * down)
    if k.chance(0.45):
        for side in "lr":
            k.arm(side, curve(u, (0, 0), (0.3, 1), (0.7, 1), (1, 0)), k.vary(1, 60, 95), 4, 10, 12)


def _sit_down(k: Take) -> None:
    length = min(k.rng.uniform(1.0, 1.7) / k.tempo, 0.85 * (k.stop - k.start))
    u = np.clip((k.t - k.start) / length, 0, 1)
    sat, lean = smooth(u), curve(u, (0, 0), (0.5, 1), (1, 0)) * k.vary(0, 18, 42)
    final = k.vary(1, -8, 14)
    k.legs(k.vary(2, 76, 92) * sat + lean + final * sat, k.vary(3, 76, 100) * sat)
    k.add(pitch=lean + final * sat, spine_pitch=k.vary(4, 0, 22) * sat)
    if k.chance(0.6):
        for side in "lr":
            k.arm(side, sat, k.vary(5, 12, 34), 8, 18, k.vary(6, 40, 75))


def _kick(k: Take) -> None:
    u = k.beats(0.62, 1, 2)
    high = k.vary(0, 42, 92) * k.gain
    k.add(
        hip_r=curve(u, (0, 0), (0.26, -26), (0.5, high), (0.62, 0.85 * high), (1, 0)),
        knee_r=curve(u, (0, 0), (0.28, k.vary(1, 40, 80)), (0.5, 10), (0.62, 18), (0.8, 30), (1, 0)),
        hip_abd_r=k.vary(2, -6, 22) * curve(u, (0, 0), (0.5, 1), (1, 0)),
        flat_r=-curve(u, (0, 0), (0.1, 1), (0.88, 1), (1, 0)),
        ankle_r=-20 * curve(u, (0, 0), (0.4, 1), (0.7, 1), (1, 0)),
        pitch=-k.vary(3, 3, 16) * curve(u, (0, 0), (0.5, 1), (1, 0)),
        knee_l=12 * curve(u, (0, 0), (0.4, 1), (1, 0)),
        hip_l=-k.vary(3, 3, 14) * curve(u, (0, 0), (0.5, 1), (1, 0)),
    )
    k.planted = {"l": 1.0, "r": 0.0}


def _throw(k: Take) -> None:
    u = k.beats(0.55, 1, 2)
    busy = curve(u, (0, 0), (0.2, 1), (0.75, 1), (1, 0))
    raised = k.vary(0, 55, 115)
    k.arm(
        "r", busy,
        curve(u, (0, 0), (0.36, -12), (0.52, 88), (0.66, 45), (1, 0)),
        curve(u, (0, 20), (0.36, raised), (0.52, 22), (0.66, -14), (1, 0)),
        curve(u, (0, 0), (0.36, -88), (0.52, -20), (0.66, 10), (1, 0)),
        curve(u, (0, 30), (0.36, k.vary(1, 70, 115)), (0.52, 14), (0.66, 20), (1, 10)),
    )  # fmt: skip
    k.add(
        spine_yaw=k.gain * curve(u, (0, 0), (0.36, -k.vary(2, 12, 38)), (0.56, 28), (1, 0)),
        pitch=10 * curve(u, (0, 0), (0.36, -0.5), (0.6, 1), (1, 0)),
        hip_l=22 * curve(u, (0, 0), (0.3, 0.4), (0.5, 1), (1, 0)),
        knee_l=14 * curve(u, (0, 0), (0.4, 1), (1, 0)),
    )
    k.planted = {"l": 0.0, "r": 1.0}


def _clap(k: Take) -> None:
    rate = k.vary(0, 1.3, 2.7) * k.tempo
    open_ = 0.5 - 0.5 * np.cos(2 * np.pi * rate * (k.t - k.start))
    elbow, flex, wide = k.vary(1, 62, 100), k.vary(2, 18, 75), k.vary(3, 14, 42) * k.gain
    meet = k.midline_rotation(elbow)
    for side in "lr":
        k.arm(side, k.window(0.4), flex, 0.25 * wide * open_, meet - wide * open_, elbow - 5 * open_)


def _bow(k: Take) -> None:
    u = k.beats(0.4, 1, 2)
    down = curve(u, (0, 0), (0.38, 1), (0.6, 1), (1, 0)) * k.vary(0, 32, 80) * k.gain
    k.add(pitch=0.7 * down, spine_pitch=0.4 * down, neck_pitch=0.2 * down)
    k.legs(0.7 * down + 0.1 * down, k.vary(1, 0, 0.18) * down)
    if k.chance(0.5):  # arms that hang plumb; else they go along with the trunk
        k.add(flex_l=down, flex_r=down)


def _punch(k: Take) -> None:
    ready = k.window(0.4)
    guard = (k.vary(0, 15, 45), 10.0, 28.0, k.vary(1, 75, 125))
    for side in "lr":
        k.arm(side, ready if side == "r" else ready * k.chance(0.7), *guard)
    u = k.beats(1.05, 1, 4)
    out = curve(u, (0, 0), (0.32, 1), (0.46, 1), (0.85, 0), (1, 0))
    k.arm("r", out, k.vary(2, 70, 98), k.rng.uniform(-6, 8), 8, 12)
    k.add(spine_yaw=k.vary(3, 8, 26) * out, spine_pitch=6 * out, hip_l=12 * ready, hip_r=-10 * ready, knee_l=8 * ready)


def _turn(k: Take) -> None:
    angle = k.rng.choice([-1.0, 1.0]) * k.rng.uniform(120, 380)
    turning = smooth((k.t - k.start) / min(k.stop - k.start, abs(angle) / (130 * k.tempo)))
    k.add(yaw=angle * turning, neck_yaw=0.15 * angle * turning * (1 - turning))
    lifting = np.clip(np.gradient(turning, k.t), 0, 1)
    phase = 2 * np.pi * 1.1 * k.tempo * k.t
    for side, shift in (("l", 0.0), ("r", np.pi)):
        up = lifting * np.maximum(0.0, np.sin(phase + shift))
        k.add(**{f"hip_{side}": 24 * up, f"knee_{side}": 42 * up, f"hip_abd_{side}": 8 * up})
    k.planted = {"l": 0.0, "r": 0.0}


def _raise_arms(k: Take) -> None:
    u = k.beats(0.42, 1, 2)
    up = curve(u, (0, 0), (0.36, 1), (0.64, 1), (1, 0)) * k.vary(0, 118, 172)
    busy = curve(u, (0, 0), (0.14, 1), (0.86, 1), (1, 0))
    sideways, bend = k.rng.random() < k.style.habits[1], k.vary(2, 2, 45)
    for side in "lr":
        if sideways:
            k.arm(side, busy, 6, 6 + up, 0, bend * (0.3 + 0.7 * up / 172))
        else:
            k.arm(side, busy, up, k.vary(3, 2, 18), 0, bend)
    k.add(neck_pitch=-k.vary(4, 0, 25) * up / 172)


# ---- movements of two: they return the extra distance (T,) over touching, and what touches --------------------------


def _approach(a: Take, b: Take, far: float) -> Array:
    """Extra distance, from `far` to 0 around the start; both walk if it is worth a step."""
    length = max(0.4, far / (1.3 * a.tempo))
    near = smooth((a.t - a.start + 0.6 * length) / length)
    if far > 0.3:
        moving = np.clip(4 * near * (1 - near), 0, 1)
        for k in (a, b):
            phase = 2 * np.pi * 0.9 * k.tempo * k.t + k.rng.uniform(0, 6)
            _stride(k, moving, phase, 20 * k.gain, 0.3)
            k.planted = {"l": 0.0, "r": 0.0}
    return far * (1 - near)


def _handshake(a: Take, b: Take) -> tuple[Array, str]:
    far = a.rng.choice([0.0, a.rng.uniform(0.3, 1.2)])
    extra = _approach(a, b, far)
    b.start, b.stop = a.start + a.rng.uniform(-0.1, 0.25), a.stop + a.rng.uniform(-0.2, 0.15)
    a.left = b.left = False  # by custom it is the right hand
    shake = a.vary(0, 5, 14) * np.sin(2 * np.pi * a.vary(1, 1.5, 2.8) * a.t)
    for k in (a, b):
        flex = k.vary(2, 33, 53)
        k.arm("r", k.window(), flex + 0.4 * shake, -10, 12, 88 - flex + shake)
        bow = k.window() * k.vary(3, 0, 12)
        k.add(pitch=bow, hip_l=bow, hip_r=bow, neck_pitch=k.window() * k.vary(4, 0, 12))
    return extra, "hands"


def _push(a: Take, b: Take) -> tuple[Array, str]:
    extra = _approach(a, b, a.rng.choice([0.0, a.rng.uniform(0.2, 0.6)]))
    u = a.beats(0.6, 1, 1)
    busy, out = curve(u, (0, 0), (0.25, 1), (0.75, 1), (1, 0)), curve(u, (0, 0), (0.3, 0), (0.5, 1), (0.7, 1), (1, 0.2))
    low, bent = a.vary(0, 20, 45), a.vary(1, 85, 120)
    for side in "lr":
        a.arm(side, busy, low + (84 - low) * out, 8, 14 - 8 * out, bent - (bent - 14) * out)
    a.add(pitch=a.vary(2, 4, 14) * out, hip_r=a.vary(2, 4, 14) * out, hip_l=26 * out, knee_l=18 * out)
    shoved = smooth((u - 0.42) / 0.3)
    reel = curve(u, (0, 0), (0.42, 0), (0.58, 1), (1, 0)) * b.vary(3, 0.5, 1.3)
    b.add(pitch=-14 * reel, spine_pitch=-8 * reel, neck_pitch=12 * reel, hip_r=-20 * reel, knee_r=20 * reel)
    for side in "lr":
        b.arm(side, np.clip(0.7 * reel, 0, 1), 25, 40, 0, 40)
    b.planted = {"l": 0.0, "r": 0.0}
    return extra + a.vary(4, 0.08, 0.5) * shoved, "chest"


def _hug(a: Take, b: Take) -> tuple[Array, str]:
    extra = _approach(a, b, a.rng.uniform(0.35, 1.3))
    b.start, b.stop = a.start, a.stop
    pat = 6 * np.sin(2 * np.pi * a.vary(0, 1.5, 2.5) * a.t) * a.chance(0.5)
    for k, over in ((a, 1.0), (b, -1.0)):
        held = k.window(0.7)
        for side, sign in (("r", 1.0), ("l", -1.0)):  # one arm over the other's shoulder, one under
            k.arm(side, held, k.vary(1, 52, 72) + 16 * sign * over, 26, 44, k.vary(2, 42, 70) + pat)
        k.add(pitch=8 * held, hip_l=8 * held, hip_r=8 * held, neck_roll=12 * held * over, neck_pitch=8 * held)
    return extra, "bodies"


_SOLO: dict[str, Callable[[Take], None]] = {
    "walk": _walk, "wave": _wave, "jump": _jump, "squat": _squat, "kick": _kick, "throw": _throw, "clap": _clap,
    "sit_down": _sit_down, "bow": _bow, "punch": _punch, "turn": _turn, "raise_arms": _raise_arms,
}  # fmt: skip
_DUO: dict[str, Callable[[Take, Take], tuple[Array, str]]] = {"handshake": _handshake, "push": _push, "hug": _hug}
ACTIONS: tuple[str, ...] = (*_SOLO, *_DUO)
TWO_PERSON: tuple[str, ...] = tuple(_DUO)


def perform(action: str, rng: np.random.Generator, style: Style, seconds: Array) -> list[Array]:
    """Act: positions (T, V, 3) in metres of each person, floor at y = 0, the scene centred on the origin.

    One person faces +z. Of two, who stand along z and face each other, the first has the given style and the other is
    a stranger drawn for this take, so that no subject's body or habits leak across a split of subjects.
    """
    lead = Take(rng, style, seconds)
    if action in _SOLO:
        _SOLO[action](lead)
        return [lead.positions()]
    other = Take(rng, draw_style(rng), seconds)
    roles = (lead, other) if rng.random() < 0.5 else (other, lead)
    extra, touch = _DUO[action](*roles)
    first, second = (k.positions() for k in roles)
    moment = int(np.searchsorted(seconds[:-1], 0.5 * (roles[0].start + roles[0].stop)))
    _face(first, second, extra, touch, moment=moment, rng=rng)
    return [first, second] if roles[0] is lead else [second, first]


def _face(first: Array, second: Array, extra: Array, touch: str, *, moment: int, rng: np.random.Generator) -> None:
    """Set the second person opposite the first, in place: at `moment` they touch, but for what `extra` adds."""
    second[..., (0, 2)] *= -1.0  # half a turn
    aside = rng.normal(0, 0.03)
    if touch == "hands":
        palm_a, palm_b = first[moment, 11], second[moment, 11]
        gap = palm_a[2] - palm_b[2] + rng.normal(0.0, 0.02)
        aside = palm_a[0] - palm_b[0]
    elif touch == "chest":
        gap = float(first[:, (7, 11), 2].max()) + 0.1
    else:
        gap = rng.uniform(0.28, 0.4)
    second[..., 0] += aside
    second[..., 2] += (gap + extra)[:, None]
    middle = 0.5 * (first[:, :1] + second[:, :1]).mean(axis=0)
    middle[:, 1] = 0.0
    first -= middle
    second -= middle
