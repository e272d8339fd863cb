"""The paper's mathematics in plain PyTorch: Eq. 2-7 and Algorithm 1. Nothing here knows BasicSR."""
