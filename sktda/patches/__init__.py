"""Features of photographs without a trained net: how much of each small pattern is in each part of a picture."""
