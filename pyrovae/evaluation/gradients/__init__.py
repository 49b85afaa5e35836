"""The signal and the noise of an objective's gradient."""
