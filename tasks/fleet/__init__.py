"""The fleet at one moment, for commands, metrics and the gateway's page."""
