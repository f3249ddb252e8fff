"""Search-space files: read strictly, with the place of everything, into frozen values. Needs no torch and no Ray."""
