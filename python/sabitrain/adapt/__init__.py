"""Changes to a checkpoint without training: its vocabulary, its depth, its width."""
