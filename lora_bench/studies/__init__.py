"""Self-contained experiments beside the benchmark; they share its records and reports only."""
