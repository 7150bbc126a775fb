"""The foundation of every room: errors, settings, files, the command line, ranks, the machine."""

from Common.Machine import let_idle_threads_sleep

let_idle_threads_sleep()  # read once, when PyTorch is loaded
