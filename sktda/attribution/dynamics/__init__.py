"""Methods that watch each row along a training run."""
