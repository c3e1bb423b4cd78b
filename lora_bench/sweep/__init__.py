"""Sweeps: the runs that a command line asks for, and their progress."""
