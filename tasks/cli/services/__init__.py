"""Service files: what ``service`` prints and installs."""
