"""Clusters: what a cluster file says, whether it can work, and the verbs that bring one up and take it down."""
