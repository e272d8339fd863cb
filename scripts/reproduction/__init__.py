"""The claims of the paper, as comparisons of short trainings: what `scripts/reproduce.py` runs and how it judges."""
