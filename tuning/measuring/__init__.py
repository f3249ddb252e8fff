"""What a trial takes of a machine, measured: time, memory, how many fit on a GPU, and what a search comes to."""
