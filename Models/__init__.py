"""Networks and distributions."""

import Common  # noqa: F401, which settles how threads wait before PyTorch is loaded
