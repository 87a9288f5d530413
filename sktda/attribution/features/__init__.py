"""Methods that need the features and labels alone: nothing of the user's is trained."""
