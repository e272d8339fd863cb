"""Option files: reading them, what keys there are, what is wrong with one."""
