"""Methods that follow a recorded training run and weigh gradients along it."""
