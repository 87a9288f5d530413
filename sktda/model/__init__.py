"""From a fitted estimator to something that can be differentiated, and the record of how it was trained."""
