"""The foundation of every room: errors, settings, files, the command line, ranks, the machine."""

from Common.Machine import settle_threads

settle_threads()  # read once, when PyTorch is loaded
