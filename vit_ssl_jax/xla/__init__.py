"""XLA: its cache, its options, its count of FLOPs."""
