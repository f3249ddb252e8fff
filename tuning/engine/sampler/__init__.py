"""Who proposes the next draws: proposers modelled with Optuna, and the portfolio that chooses among them."""
