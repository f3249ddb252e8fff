"""Where a run's memory may lie besides its folder: copies of journal and checkpoints behind a URL, data on a node.

Free of Ray and torch. Nothing here decides anything: a store receives what a search has written already.
"""
