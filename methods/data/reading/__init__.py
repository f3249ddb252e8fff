"""What the readers of foreign formats are made of: texts, archives, pickles, mocap files, facts, and what a plan is."""
