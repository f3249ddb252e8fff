"""A tiny search file and data for tests of sessions."""

from methods.data.synthetic import SyntheticConfig

FILE = """format: 1
name: tiny
seed: 3
data: {set: DATA, split: xsub, validate_on: VALIDATE, frames: 8}
search:
  method:
    skeletonbyol: {momentum: 0.98, hidden: 8, projection: 8}
  encoder: {width: 2, dim: 8, depth: 3, dropout: 0.0, init: torch}
  optim: {name: adam, lr: 0.003, batch: 8}
  streams: {use: [joint]}
probe: {l2: 0.01}
schedule: {max: 2}
"""
SMALL = SyntheticConfig(clips_per_cell=1, subjects=6, cameras=2, actions=("walk", "wave", "squat"), max_frames=40)
