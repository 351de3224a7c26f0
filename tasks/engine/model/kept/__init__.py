"""Files that a load leaves for later ones: verdicts of trials."""
