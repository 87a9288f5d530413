"""One file per library: `load(model, device)` makes a `Backbone` of what is on this machine, and fetches nothing."""
