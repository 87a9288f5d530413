"""What pages show of a row: its cells or picture beside those of the nearest rows, labels as text, pairs of classes."""
