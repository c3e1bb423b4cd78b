"""Speed measurements. Each module is a command: ``python -m benchmarks.speed --help``."""
