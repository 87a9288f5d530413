"""Methods that read a trained ensemble of trees: which leaf each row falls into, and what made the leaf's value."""
