import os

# Before PyTorch is loaded: its idle threads are to sleep, not to spin on the cores that step the environments.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
