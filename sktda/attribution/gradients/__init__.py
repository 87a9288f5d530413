"""Methods that need the gradients of a trained model."""
