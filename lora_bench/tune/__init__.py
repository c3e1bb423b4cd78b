"""The search of learning rates: ``python -m lora_bench.tune``."""
