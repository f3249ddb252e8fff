"""Puppets: an articulated 25-joint body with a style of its own; `movements` moves it, `synthetic` records it.

Body frame, metres: x to the body's left, y up, z forward; the floor is y = 0. Angles are degrees, zero is standing
upright with hanging arms, and positive flexion moves a limb forward (a knee: backward). All movements are written for
a right-handed body and mirrored afterwards. T frames, V = 25 joints in the order of NTU RGB+D (Kinect v2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

JOINTS = 25
_PARENT = (-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11)
_ORDER = (1, 20, 2, 3, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24, 12, 13, 14, 15, 16, 17, 18, 19)
_ARM = {"l": (4, 5, 6, 7), "r": (8, 9, 10, 11)}  # shoulder, elbow, wrist, hand
_LEG = {"l": (12, 13, 14, 15), "r": (16, 17, 18, 19)}  # hip, knee, ankle, foot
_FEET = (14, 15, 18, 19)
_LATERAL = ("x", "yaw", "roll", "spine_roll", "spine_yaw", "neck_roll", "neck_yaw")  # change sign in a mirror
_TRUNK = ("x", "z", "lift", "yaw", "pitch", "roll", "spine_pitch", "spine_roll", "spine_yaw", "neck_pitch",
          "neck_roll", "neck_yaw")  # fmt: skip
_LIMB = ("flex", "abd", "rot", "elbow", "wrist", "hip", "hip_abd", "hip_rot", "knee", "ankle", "flat")
COLUMNS = _TRUNK + tuple(f"{name}_{side}" for side in "lr" for name in _LIMB)
_SWAY = {"x": 0.012, "z": 0.012, "lift": 0.0, "yaw": 4.0, "pitch": 1.5, "spine_pitch": 2.0, "neck_pitch": 6.0,
         "neck_yaw": 12.0, "flex": 4.0, "abd": 2.5, "rot": 5.0, "elbow": 5.0, "wrist": 6.0, "flat": 0.0}  # fmt: skip

# What arms do while nobody asks anything of them: (flex, abd, rot, elbow).
_IDLE_ARMS = (
    (0, 8, 0, 12),  # hanging
    (4, 12, 10, 25),  # hanging, loose
    (-15, 38, 60, 92),  # hand on the hip
    (-5, 16, 20, 42),  # hand in a pocket
    (24, 10, 36, 108),  # hand before the chest, as with a telephone
    (12, 12, 62, 84),  # forearm across the belly
    (-30, 14, 55, 40),  # hand behind the back
)
# What they do now and then for no reason: scratch the head or chin, shrug, point ahead or aside, shade the eyes,
# stretch up, offer a hand.
_GESTURES = (*_IDLE_ARMS, (75, 40, 25, 138), (60, 15, 5, 120), (40, 45, -20, 60), (82, 0, 0, 8), (10, 75, 0, 15),
             (70, 45, 40, 110), (150, 15, 0, 30), (35, -10, 15, 60))  # fmt: skip


def smooth(x: Array) -> Array:
    """Ramp from 0 (x <= 0) to 1 (x >= 1) with flat ends."""
    s = np.clip(x, 0.0, 1.0)
    return np.asarray(s * s * (3.0 - 2.0 * s))


def curve(u: Array, *knots: tuple[float, float]) -> Array:
    """Smooth keyframes: at each knot (time, value) the value is met with zero slope."""
    times, values = np.array(knots, dtype=np.float64).T
    index = np.clip(np.searchsorted(times, u, side="right") - 1, 0, len(knots) - 2)
    share = smooth((u - times[index]) / (times[index + 1] - times[index]))
    return np.asarray(values[index] + (values[index + 1] - values[index]) * share)


@dataclass(frozen=True)
class Style:
    """How one person is built and moves: rest offsets (V, 3) in metres to the parent joint, and habits in [0, 1]."""

    offsets: Array
    tempo: float
    gain: float
    left_handed: bool
    stoop: float
    stance: float
    sway: float
    asymmetry: float
    habits: Array

    @property
    def forearm(self) -> float:
        """Elbow to hand, metres."""
        return float(-self.offsets[6, 1] - self.offsets[7, 1])


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a person: height 1.5 to 1.95 m, limb ratios, tempo, handedness, posture."""
    height = rng.uniform(1.50, 1.95) / 1.72
    torso, arms, legs = rng.uniform(0.92, 1.08, 3) * height
    shoulders, hips = rng.uniform(0.85, 1.15, 2) * height
    return Style(
        offsets=_rest_offsets(torso, arms, legs, shoulders, hips),
        tempo=float(np.exp(rng.uniform(np.log(0.72), np.log(1.38)))),
        gain=float(rng.uniform(0.75, 1.15)),
        left_handed=bool(rng.random() < 0.35),
        stoop=float(rng.uniform(-4.0, 16.0)),
        stance=float(rng.uniform(1.0, 9.0)),
        sway=float(rng.uniform(0.5, 1.5)),
        asymmetry=float(rng.uniform(-0.15, 0.15)),
        habits=rng.random(8),
    )


def _rest_offsets(torso: float, arms: float, legs: float, shoulders: float, hips: float) -> Array:
    """Offsets (V, 3) of each joint from its parent in the rest pose, metres."""
    offsets = np.zeros((JOINTS, 3))
    offsets[[1, 20, 2, 3], 1] = np.array([0.29, 0.22, 0.08, 0.15]) * torso
    for side, sign in (("l", 1.0), ("r", -1.0)):
        shoulder, elbow, wrist, hand = _ARM[side]
        hip, knee, ankle, foot = _LEG[side]
        offsets[shoulder] = (0.17 * sign * shoulders, -0.04 * torso, 0.0)
        offsets[[elbow, wrist, hand], 1] = np.array([-0.28, -0.25, -0.07]) * arms
        offsets[hip] = (0.08 * sign * hips, -0.04 * torso, 0.0)
        offsets[[knee, ankle], 1] = np.array([-0.41, -0.40]) * legs
        offsets[foot] = (0.02 * sign * hips, -0.06 * legs, 0.12 * legs)
    offsets[[21, 23], 1] = -0.08 * arms
    offsets[[22, 24]] = np.array([0.0, -0.04, 0.045]) * arms
    return offsets


class Take:
    """One person's performance: pose columns over T frames, to be filled by a movement and then posed.

    ``seconds`` (T,) is warped a little, so that no two takes share their timing.
    """

    def __init__(self, rng: np.random.Generator, style: Style, seconds: Array) -> None:
        self.rng, self.style = rng, style
        span = float(seconds[-1])
        warp = rng.uniform(-0.08, 0.08) * span
        self.t = seconds + warp * np.sin(np.pi * seconds / span + rng.uniform(0, np.pi)) / np.pi
        share = rng.uniform(0.5, 0.93)  # of the clip is the movement, somewhere
        self.start = span * rng.uniform(0.03, 0.97 - share)
        self.stop = self.start + share * span
        self.gain = style.gain * rng.uniform(0.85, 1.15)
        self.tempo = style.tempo * rng.uniform(0.85, 1.2)
        self.left = style.left_handed != (rng.random() < 0.1)
        self.planted = {"l": 1.0, "r": 1.0}
        self.pose: dict[str, Array] = {name: np.zeros_like(self.t) for name in COLUMNS}
        self._stand()

    def _stand(self) -> None:
        """Rest posture, idle arms and gestures that mean nothing."""
        self.add(spine_pitch=self.style.stoop * 0.6, neck_pitch=self.style.stoop * 0.5)
        idle = self.rng.choice(len(_IDLE_ARMS), 2, p=(0.3, 0.22, 0.1, 0.12, 0.1, 0.08, 0.08))
        for side, which in zip("lr", idle, strict=True):
            self.add(**{f"hip_abd_{side}": self.style.stance + self.rng.uniform(0, 5), f"flat_{side}": 1.0,
                        f"hip_rot_{side}": -self.rng.uniform(0, 15)})  # fmt: skip
            self.arm(side, 1.0, *(np.array(_IDLE_ARMS[which]) + self.rng.normal(0, 5, 4)))
            if self.chance(0.6):
                self.arm(side, self._moment(), *_GESTURES[self.rng.integers(len(_GESTURES))])
        self._fidget()

    def _moment(self) -> Array:
        """0, then 1 for half a second or two somewhere in the clip, then 0."""
        centre, width = self.rng.uniform(0, self.t[-1]), self.rng.uniform(0.5, 1.5)
        return smooth(1.6 - np.abs(self.t - centre) / width)

    def _fidget(self) -> None:
        """Lean, bend, twist and shift the feet, again for no reason; the whole body slowly turns."""
        self.add(yaw=self.rng.uniform(-22, 22) * (self.t / self.t[-1] - 0.5))
        if self.chance(0.7):
            lean, moment = np.clip(self.rng.normal(0, 1, 4), -1.7, 1.7), self._moment()
            self.add(spine_roll=9 * lean[0] * moment, spine_yaw=14 * lean[1] * moment,
                     spine_pitch=11 * abs(lean[2]) * moment, pitch=7 * lean[3] * moment)  # fmt: skip
            self.legs(7 * lean[3] * moment, 0.0)  # the pelvis tips, the legs stay upright
        stagger, bend, moment = self.rng.normal(0, 5), self.rng.uniform(0, 12), self._moment()
        bend = bend + moment * self.rng.choice([0.0, 28.0]) * self.rng.random()
        self.legs(0.5 * bend, bend)
        self.add(hip_l=stagger, hip_r=-stagger)
        if self.chance(0.5):
            moment, phase = self._moment(), 2 * np.pi * self.rng.uniform(0.7, 1.2) * self.t
            for side, shift in (("l", 0.0), ("r", np.pi)):
                up = moment * np.maximum(0.0, np.sin(phase + shift))
                self.add(**{f"hip_{side}": self.rng.uniform(8, 26) * up, f"knee_{side}": 38 * up})

    def chance(self, share: float) -> bool:
        """True in this share of takes."""
        return bool(self.rng.random() < share)

    def add(self, **columns: float | Array) -> None:
        """Add to pose columns."""
        for name, value in columns.items():
            self.pose[name] = self.pose[name] + value

    def arm(self, side: str, weight: float | Array, *angles: float | Array) -> None:
        """Blend one arm towards flex, abd, rot and elbow; weight 0 keeps what the arm was doing, 1 replaces it."""
        for name, value in zip(_LIMB[:4], angles, strict=True):
            old = self.pose[f"{name}_{side}"]
            self.pose[f"{name}_{side}"] = old + weight * (value - old)

    def legs(self, hip: float | Array, knee: float | Array) -> None:
        """Add the same bend to both legs."""
        for side in "lr":
            self.add(**{f"hip_{side}": hip, f"knee_{side}": knee})

    def vary(self, habit: int, low: float, high: float) -> float:
        """A choice between low and high: mostly the person's habit, partly the mood of this clip."""
        return float(low + (high - low) * (0.6 * self.style.habits[habit] + 0.4 * self.rng.random()))

    def window(self, ramp: float = 0.5) -> Array:
        """0 before the movement, 1 during it, 0 after; ramps of `ramp` seconds at tempo 1."""
        ramp = min(ramp / self.tempo, 0.4 * (self.stop - self.start))
        return smooth((self.t - self.start) / ramp) * smooth((self.stop - self.t) / ramp)

    def beats(self, rate: float, low: int, high: int) -> Array:
        """Phase in [0, 1] of low..high repetitions at about `rate` hertz; 0 before the first and 1 after the last."""
        wanted = int(self.rng.integers(low, high + 1))
        fits = max(1, int((self.stop - self.start) * rate * self.tempo * 1.15))
        count = min(wanted, fits)
        length = min((self.stop - self.start) / count, self.rng.uniform(1.0, 1.35) / (rate * self.tempo))
        position = np.clip((self.t - self.start) / length, 0.0, count)
        return np.where(position >= count, 1.0, position - np.floor(position))

    def midline_rotation(self, elbow: float, abd: float = 0.0) -> float:
        """Inward rotation of the upper arm that brings a hand with this elbow bend to the middle of the body."""
        aside = self.style.offsets[4, 0] - self.style.offsets[5, 1] * np.sin(np.radians(abd))
        reach = self.style.forearm * np.sin(np.radians(elbow))
        return float(np.degrees(np.arcsin(np.clip(aside / reach, -1.0, 1.0))))

    def positions(self) -> Array:
        """Joint positions (T, V, 3) in the body frame, feet on the floor unless lifted."""
        pose = _mirrored(self.pose) if self.left else dict(self.pose)
        planted = {"l": self.planted["r"], "r": self.planted["l"]} if self.left else self.planted
        _add_sway(pose, self.rng, self.style.sway, self.t)
        for side in "lr":  # the sole stays flat as far as an ankle goes
            level = np.clip(pose[f"knee_{side}"] - pose[f"hip_{side}"] + pose["pitch"], -40, 40)
            pose[f"ankle_{side}"] = pose[f"ankle_{side}"] + pose[f"flat_{side}"] * level
        points = _forward(pose, self.style.offsets)
        points[..., 1] += (pose["lift"] - points[:, _FEET, 1].min(axis=1))[:, None]
        anchor = planted["l"] * points[:, 14] + planted["r"] * points[:, 18]
        anchor[:, 1] = 0.0
        points -= ((anchor - anchor[0]) / max(1.0, planted["l"] + planted["r"]))[:, None]
        return points


def _mirrored(pose: dict[str, Array]) -> dict[str, Array]:
    swap = {"l": "r", "r": "l"}
    out = {name: -pose[name] if name in _LATERAL else pose[name] for name in _TRUNK}
    out.update({f"{name}_{side}": pose[f"{name}_{swap[side]}"] for name in _LIMB for side in "lr"})
    return out


def _add_sway(pose: dict[str, Array], rng: np.random.Generator, size: float, t: Array) -> None:
    """Slow aimless motion of every column: three sines each."""
    hertz = rng.uniform(0.08, 0.7, (len(COLUMNS), 3, 1))
    phase = rng.uniform(0, 2 * np.pi, (len(COLUMNS), 3, 1))
    scale = rng.normal(0, 0.6, (len(COLUMNS), 3, 1))
    waves = (scale * np.sin(2 * np.pi * hertz * t + phase)).sum(axis=1)
    for name, wave in zip(COLUMNS, waves, strict=True):
        stem = name[:-2] if name.endswith(("_l", "_r")) else name
        pose[name] = pose[name] + size * _SWAY.get(stem, 1.0) * wave


def _forward(pose: dict[str, Array], offsets: Array) -> Array:
    """Forward kinematics: pose columns to positions (T, V, 3). Each joint turns by Rx(a) Rz(b) Ry(c)."""
    frames = len(pose["x"])
    angles = np.zeros((frames, JOINTS, 3))
    for joint, share in ((1, 0.6), (20, 0.4)):
        angles[:, joint] = share * np.stack([pose["spine_pitch"], pose["spine_roll"], pose["spine_yaw"]], axis=1)
    angles[:, 2] = np.stack([pose["neck_pitch"], pose["neck_roll"], pose["neck_yaw"]], axis=1)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        shoulder, elbow, wrist, _ = _ARM[side]
        hip, knee, ankle, _ = _LEG[side]
        for joint, stems in ((shoulder, ("flex", "abd", "rot")), (hip, ("hip", "hip_abd", "hip_rot"))):
            flex, abd, rot = (pose[f"{stem}_{side}"] for stem in stems)
            angles[:, joint] = np.stack([-flex, sign * abd, -sign * rot], axis=1)
        angles[:, elbow, 0] = -np.maximum(pose[f"elbow_{side}"], 0.0)  # neither elbow nor knee bends the other way
        angles[:, knee, 0] = np.maximum(pose[f"knee_{side}"], 0.0)
        angles[:, wrist, 0] = -pose[f"wrist_{side}"]
        angles[:, ankle, 0] = -pose[f"ankle_{side}"]
    local = _rotations(angles)
    turn = np.zeros((frames, 2, 3))
    turn[:, 0, 2] = pose["yaw"]
    turn[:, 1, 0], turn[:, 1, 1] = pose["pitch"], pose["roll"]
    root = _rotations(turn)
    world, points = np.empty((JOINTS, frames, 3, 3)), np.zeros((frames, JOINTS, 3))
    world[0] = root[:, 0] @ root[:, 1]
    points[:, 0, 0], points[:, 0, 2] = pose["x"], pose["z"]
    for joint in _ORDER:
        parent = _PARENT[joint]
        points[:, joint] = points[:, parent] + world[parent] @ offsets[joint]
        world[joint] = world[parent] @ local[:, joint]
    return points


def _rotations(degrees: Array) -> Array:
    """Matrices (..., 3, 3) of Rx(a) Rz(b) Ry(c) for angles (..., 3) in degrees."""
    radians = np.radians(degrees)
    (ca, cb, cc), (sa, sb, sc) = np.moveaxis(np.cos(radians), -1, 0), np.moveaxis(np.sin(radians), -1, 0)
    rows = [cb * cc, -sb, cb * sc,
            ca * sb * cc + sa * sc, ca * cb, ca * sb * sc - sa * cc,
            sa * sb * cc - ca * sc, sa * cb, sa * sb * sc + ca * cc]  # fmt: skip
    return np.stack(rows, axis=-1).reshape(*degrees.shape[:-1], 3, 3)
