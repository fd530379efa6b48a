"""What a training run will need, before anything heavy is loaded."""
