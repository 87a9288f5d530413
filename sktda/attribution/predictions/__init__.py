"""Methods that need predictions which the row's own label had no part in."""
