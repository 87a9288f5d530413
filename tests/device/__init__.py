"""The library on an accelerator, real or simulated."""
