"""Pictures in, scores out: the stages of a data set, their metrics, tables and pictures."""
