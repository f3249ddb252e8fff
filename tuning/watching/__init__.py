"""What becomes of trials and machines on a cluster: failures by kind, trials that hang, nodes that are slow or bad."""
