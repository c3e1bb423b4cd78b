"""Self-contained experiments beside the benchmark; they share only its records and reports."""
