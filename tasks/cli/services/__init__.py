"""The service files that ``service`` prints and installs."""
