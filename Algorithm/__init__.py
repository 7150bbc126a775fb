import Enviroment  # noqa: F401, which settles how threads wait before PyTorch is loaded
