"""Tables as people have them: what their columns hold, values as they are written, and numbers for estimators."""
