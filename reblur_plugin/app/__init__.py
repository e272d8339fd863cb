"""The page in the browser: photographs are dropped on it, deblurred on this machine and taken away."""
