"""What a run tells: its record, the console, TensorBoard, its report."""
