"""One file per group of commands of `hubless`."""
