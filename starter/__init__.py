"""The `hubless` command line: starts workflows, sends Updates, prints for people and for machines."""
