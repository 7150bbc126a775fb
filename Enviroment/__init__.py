import os

# Before PyTorch is loaded: its idle threads are to sleep, not to spin on the cores that step the environments; GNU's
# OpenMP after some 0.1 ms, for between two operations of a network waking them would take as long as the work.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "4000"}
