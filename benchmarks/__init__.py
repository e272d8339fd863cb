"""Time and memory of this package beside the plain forms, measured in one run."""
