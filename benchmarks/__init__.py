"""Each file answers one question by measuring; results are filed under ``results/``. Nothing imports this package."""
